"""A device that checks what it is told, and the engine's loop around it.

Its cache holds, at every slot, the position and a digest of all tokens up to there; whoever reads
a slot checks that it finds what its own tokens say. So a block that was reused too early, shared
wrongly or not written shows at once, without any model. The next token is a pure function of the
tokens so far, the seed and the choice: what a request gives in company must be what it gives alone.
"""

import hashlib

import pytest
from aphrodite_engine.engine import Engine
from aphrodite_engine.kv import KVGroup, KVSpec
from aphrodite_engine.outputs import RowOutput, StepOutput
from aphrodite_engine.request import EngineRequest
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.scheduling.intake import SchedulingLimits
from aphrodite_engine.scheduling.scheduler import TokenBudgetScheduler

END = 0
VOCABULARY = 12


def digest(tokens):
    return hashlib.blake2b(bytes(str(tokens), "ascii"), digest_size=8).digest()


def next_token(tokens, seed, choice, banned=()):
    first = digest((tuple(tokens), seed, choice))[0]
    return next(
        token
        for step in range(VOCABULARY)
        if (token := (first + step) % VOCABULARY) not in banned or step == VOCABULARY - 1
    )


def scored(tokens, position):
    return TokenLogprobs(token=tokens[position], logprob=-float(position), rank=1, top=[])


class Row:
    def __init__(self, start, groups):
        self.start = start
        self.tokens = list(start.tokens)
        left = {"length": float(len(self.tokens))}
        assert start.remembered == (left if len(self.tokens) > start.prompt_length else {})
        self.tables = [[] for _ in range(groups)]
        self.broken = False


class Done:
    def __init__(self, output):
        self.output = output

    def wait(self):
        return self.output


class Device:
    """Executes plans in order, and finds fault with them."""

    def __init__(self, groups, limits):
        self.windows = [group.spec.window for group in groups]
        self.limits = limits
        self.rows = {}
        self.slots = {}
        self.plans = []
        self.fail = set()
        """Requests of which the next row breaks."""

    def launch(self, plan):
        self.plans.append(plan)
        assert plan.tokens <= self.limits.max_num_batched_tokens
        for row in plan.released:
            del self.rows[row]
        for start in plan.started:
            assert start.row not in self.rows, "a row was given away twice"
            assert 0 <= start.row < self.limits.max_num_seqs
            self.rows[start.row] = Row(start, len(self.windows))
        for update in plan.blocks:
            table = self.rows[update.row].tables[update.group]
            assert update.start <= len(table), "a gap in a block table"
            table[update.start : update.start + len(update.blocks)] = update.blocks
        assert len({work.row for work in plan.work}) == len(plan.work)
        self._check_owners(plan)
        written = set()
        for work in plan.work:
            self._break(self.rows[work.row])
            if not self.rows[work.row].broken:
                self._write(work, written)
        return Done(StepOutput([self._answer(work) for work in plan.work]))

    def close(self):
        pass

    def _check_owners(self, plan):
        """A block that some row writes in this plan is in no other table."""
        holders = {}
        for number, row in self.rows.items():
            for group, table in enumerate(row.tables):
                for block in table:
                    holders.setdefault(block, set()).add((number, group))
        for work in plan.work:
            size = self.limits.block_size
            for group, table in enumerate(self.rows[work.row].tables):
                for index in range(work.start // size, -(-(work.start + work.count) // size)):
                    assert holders[table[index]] == {(work.row, group)}, "a shared block is written"

    def _write(self, work, written):
        row, size = self.rows[work.row], self.limits.block_size
        assert work.count > 0
        assert work.start + work.count <= len(row.tokens), "a token is computed before it exists"
        for group, table in enumerate(row.tables):
            for position in range(work.start, work.start + work.count):
                block = table[position // size]
                assert 0 < block < self.limits.num_blocks, "the null block is written"
                slot = (block, position % size)
                assert slot not in written
                written.add(slot)
                self.slots[slot] = (group, position, digest(row.tokens[: position + 1]))

    def _break(self, row):
        if row.start.request in self.fail:
            self.fail.remove(row.start.request)
            row.broken = True

    def _answer(self, work):
        row, stop = self.rows[work.row], work.start + work.count
        if row.broken:
            return RowOutput(error="the device dislikes this request")
        self._read(row, work)
        scores = []
        if work.prompt_logprobs:
            last = min(stop, row.start.prompt_length - 1)
            scores = [scored(row.tokens, position) for position in range(work.start + 1, last + 1)]
        if not work.samples:
            return RowOutput(prompt_logprobs=scores)
        assert stop == len(row.tokens)
        bans, banned = row.start.params.bans, ()
        if bans is not None and bans.place == len(row.tokens):
            banned = bans.tokens
        token = next_token(row.tokens, row.start.seed, row.start.choice, banned)
        row.tokens.append(token)
        remembered = {"length": float(len(row.tokens))}
        return RowOutput(tokens=[token], prompt_logprobs=scores, remembered=remembered)

    def _read(self, row, work):
        size = self.limits.block_size
        for group, window in enumerate(self.windows):
            first = 0 if window is None else max(0, work.start - window + 1)
            for position in range(first, work.start + work.count):
                block = row.tables[group][position // size]
                assert block, "a visible position lies in the null block"
                found = self.slots[block, position % size]
                assert found == (group, position, digest(row.tokens[: position + 1])), "stale"


class World:
    """Scheduler, device and engine, and what came out per completion."""

    end = END
    vocabulary = VOCABULARY
    next_token = staticmethod(next_token)

    def __init__(self, windows=(None,), **limits):
        numbers = {
            "num_blocks": 64,
            "block_size": 4,
            "max_model_len": 64,
            "max_num_seqs": 4,
            "max_num_batched_tokens": 16,
            "vocab_size": 1000,
            "end_tokens": frozenset({END}),
        }
        self.limits = SchedulingLimits(**(numbers | limits))
        groups = tuple(KVGroup(KVSpec(1, 1, window), (i,)) for i, window in enumerate(windows))
        self.scheduler = TokenBudgetScheduler(groups, self.limits)
        self.device = Device(groups, self.limits)
        self.engine = Engine(self.scheduler, self.device)
        self.tokens = {}
        self.scores = {}
        """Prompt tokens that were scored, per completion."""
        self.news = {}
        """Last output of each completion."""
        self.finished = {}
        """(id, choice) → finish_reason, stop_reason."""
        self.order = []
        """Completions in order of their end."""

    def add(self, name, prompt, *, priority=0, arrival=0.0, **params):
        params = SamplingParams(**({"seed": 7} | params))
        self.engine.add(
            EngineRequest(id=name, prompt=prompt, params=params, priority=priority, arrival=arrival)
        )
        for choice in range(params.n):
            self.tokens[name, choice] = []
            self.scores[name, choice] = []

    def step(self):
        outputs = self.engine.step()
        for output in outputs:
            key = (output.id, output.choice)
            assert key not in self.finished, "news of a completion that is over"
            self.tokens[key] += output.tokens
            self.scores[key] += [score.token for score in output.prompt_logprobs]
            self.news[key] = output
            if output.finish_reason is not None:
                self.finished[key] = (output.finish_reason, output.stop_reason)
                self.order.append(key)
        self.scheduler.check()
        return outputs

    def run(self, steps=2000):
        """Until nothing is left; then every block is free."""
        outputs = []
        for _ in range(steps):
            if not self.engine.unfinished:
                break
            outputs += self.step()
        assert not self.engine.unfinished, "no end in sight"
        stats = self.engine.stats
        assert stats.kv_blocks_free == stats.kv_blocks == self.limits.num_blocks - 1
        assert (stats.running, stats.waiting) == (0, 0)
        return outputs

    def alone(self, prompt, choice, context=None, **params):
        """(tokens, (finish_reason, stop_reason)) by the definition, without an engine."""
        params = SamplingParams(**({"seed": 7} | params))
        limit = params.max_tokens
        if limit is None:
            limit = (context or self.limits.max_model_len) - len(prompt)
        stops = set(params.stop_token_ids) | (set() if params.ignore_eos else {END})
        output = []
        while len(output) < limit:
            token = next_token(prompt + output, params.seed, choice)
            output.append(token)
            if token in stops and len(output) > params.min_tokens:
                return output, ("stop", None if token == END else token)
        return output, ("length", None)


@pytest.fixture(scope="session")
def world():
    """Makes worlds."""
    return World
