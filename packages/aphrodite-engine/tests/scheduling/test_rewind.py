"""Completions that are taken back: they go on as if the discarded tokens had never been."""

from collections import deque

import pytest
from aphrodite_engine.engine import Engine
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stages.banned_strings import BannedStrings
from hypothesis import given, settings
from hypothesis import strategies as st

_STAGES = (BannedStrings(("read by the tests",)),)


class Reader:
    """One completion, in which some tokens may not follow others."""

    def __init__(self, pairs):
        self.pairs = pairs
        self.output = []
        self.banned = {}
        self.rewinds = 0

    def read(self, token):
        """(tokens kept, tokens banned there), if it is to be taken back."""
        self.output.append(token)
        place = len(self.output) - 2
        if tuple(self.output[-2:]) not in self.pairs:
            return None
        first = self.output[place]
        if first in self.banned.get(place, ()):
            return None
        here = (*self.banned.get(place, ()), first)
        self.banned = {at: those for at, those in self.banned.items() if at < place}
        self.banned[place] = here
        del self.output[place:]
        self.rewinds += 1
        return place, here


def definition(world, prompt, choice, params, pairs):
    """What a reader ends with, and why, by the definition."""
    reader = Reader(pairs)
    while True:
        place = len(reader.output)
        tokens = [*prompt, *reader.output]
        token = world.next_token(tokens, params.seed, choice, reader.banned.get(place, ()))
        if reader.read(token) is not None:
            continue
        if token == world.end and not params.ignore_eos:
            return reader.output, "stop", reader.rewinds
        if len(reader.output) == params.max_tokens:
            return reader.output, "length", reader.rewinds


class Front:
    """Reads news some steps late."""

    def __init__(self, world, lag):
        self.world = world
        self.lag = lag
        self.readers = {}
        self.ended = {}
        self.late = deque()

    def add(self, name, prompt, params, pairs):
        self.world.engine.add(EngineRequest(id=name, prompt=prompt, params=params, arrival=0.0))
        for choice in range(params.n):
            self.readers[name, choice] = Reader(pairs)

    def step(self):
        self.late.append(self.world.engine.step())
        self.world.scheduler.check()
        if len(self.late) > self.lag:
            for output in self.late.popleft():
                self._take(output)

    def _take(self, output):
        key = output.id, output.choice
        reader = self.readers[key]
        if output.rewinds != reader.rewinds:
            return
        assert key not in self.ended, "news of a completion that is over"
        for token in output.tokens:
            back = reader.read(token)
            if back is not None:
                self.world.engine.rewind(*key, *back)
                return
        if output.finish_reason is not None:
            self.ended[key] = output.finish_reason
            self.world.engine.abort(*key)

    def run(self):
        for _ in range(4000):
            if not self.world.engine.unfinished and not any(self.late):
                break
            self.step()
        stats = self.world.engine.stats
        assert stats.kv_blocks_free == stats.kv_blocks, "blocks are held at the end"
        assert (stats.running, stats.waiting) == (0, 0)


tokens = st.integers(0, 11)
crowds = st.lists(
    st.fixed_dictionaries(
        {
            "prompt": st.lists(st.integers(1, 3), min_size=1, max_size=14),
            "pairs": st.frozensets(st.tuples(tokens, tokens), max_size=30),
            "n": st.sampled_from([1, 1, 2, 3]),
            "max_tokens": st.integers(1, 12),
            "ignore_eos": st.booleans(),
            "seed": st.integers(0, 3),
        }
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    crowds,
    st.integers(0, 3),
    st.sampled_from([(None,), (None, 5), (6,)]),
    st.sampled_from([1, 2, 4]),
    st.integers(14, 40),
    st.booleans(),
)
def test_what_is_taken_back_changes_nothing_else(
    world, crowd, lag, windows, block_size, blocks, caching
):
    numbers = {"max_num_seqs": 3, "max_model_len": 28, "enable_prefix_caching": caching}
    size = {"num_blocks": blocks * (1 + 28 // block_size // 4 + len(windows))}
    front = Front(world(windows, block_size=block_size, **size, **numbers), lag)
    expected = {}
    for number, request in enumerate(crowd):
        pairs, prompt = request.pop("pairs"), request.pop("prompt")
        params = SamplingParams(**request, stages=_STAGES)
        front.add(str(number), prompt, params, pairs)
        for choice in range(params.n):
            expected[str(number), choice] = definition(world, prompt, choice, params, pairs)
    front.run()
    found = {
        key: (reader.output, front.ended.get(key), reader.rewinds)
        for key, reader in front.readers.items()
    }
    assert found == expected


def test_an_end_is_held_until_its_reader_speaks(world):
    engine: Engine = world().engine
    params = SamplingParams(max_tokens=2, seed=1, ignore_eos=True, stages=_STAGES)
    engine.add(EngineRequest(id="r", prompt=[1], params=params, arrival=0.0))
    news: list[RequestOutput] = []
    while engine.unfinished:
        news += engine.step()
    assert [output.finish_reason for output in news] == [None, "length"]
    first = news[0].tokens[0]
    engine.rewind("r", 0, 0, [first])
    again: list[RequestOutput] = []
    while engine.unfinished:
        again += engine.step()
    assert {output.rewinds for output in again} == {1}
    assert again[0].tokens == [world.next_token([1], 1, 0, (first,))]
    assert again[-1].finish_reason == "length"
    engine.abort("r")
    engine.rewind("r", 0, 0, [first])
    assert not engine.unfinished


@pytest.mark.parametrize("caching", [True, False])
def test_little_is_computed_again(world, caching):
    made = world(block_size=4, enable_prefix_caching=caching)
    front = Front(made, 1)
    pairs = frozenset((a, b) for a in range(world.vocabulary) for b in range(4))
    params = SamplingParams(max_tokens=12, seed=2, ignore_eos=True, stages=_STAGES)
    front.add("r", [1] * 40, params, pairs)
    front.run()
    rewinds = front.readers["r", 0].rewinds
    assert rewinds > 2
    computed = sum(plan.tokens for plan in made.device.plans)
    steps = len(made.device.plans)
    assert computed <= 40 + steps + rewinds * (4 + 3), "the prompt was computed again"
