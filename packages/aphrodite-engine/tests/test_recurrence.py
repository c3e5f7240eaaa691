"""Stages that count repetitions, over texts that grow, are preempted, taken back and forked."""

import random
from array import array

import numpy as np
import pytest
import torch
from aphrodite_engine.plan import RowStart
from aphrodite_engine.sampling.breakers import last_break
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.recurrence import Recurrence
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.dry import Dry
from aphrodite_engine.sampling.stages.no_repeat_ngram import NoRepeatNgram
from aphrodite_engine.sampling.stages.temperature import Temperature
from aphrodite_kernels.backends import reference
from history_stages import breaker, definition, since_breaker
from hypothesis import given, settings
from hypothesis import strategies as st

_CPU = torch.device("cpu")
_BACKEND = reference.create(_CPU, threads=1, dtype=torch.float32)
_ROWS, _WIDTH, _VOCABULARY = 9, 900, 60
_TOKENS = st.integers(0, 2)

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers_of(text):
    """Of each place, by comparing token after token."""
    numbers = []
    for place in range(len(text)):
        length = 0
        while length < place and text[place - 1 - length] == text[-1 - length]:
            length += 1
        numbers.append(length)
    return numbers


def ends_of(texts):
    longest = max(map(len, texts))
    padded = [[-1] * (longest - len(text)) + text for text in texts]
    return torch.tensor(padded, dtype=torch.int32)


@given(st.lists(st.lists(_TOKENS, min_size=1, max_size=30), min_size=1, max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_numbers_are_those_of_the_definition(texts, data):
    """Whatever part of each text it starts with, and in whatever order and company it grows."""
    recurrence, known = Recurrence(_CPU), {}
    for row, text in enumerate(texts):
        known[row] = text[: data.draw(st.integers(1, len(text)))]
        recurrence.start(row, known[row])
    for _ in range(30):
        rows = data.draw(st.permutations(range(len(texts)))) if len(texts) > 1 else [0]
        rows = rows[: data.draw(st.integers(1, len(rows)))]
        now = [known[row] for row in rows]
        found = recurrence.follow(
            rows, [*map(len, now)], torch.tensor(rows), (64, 40), ends_of(now)
        )
        for text, numbers in zip(now, found.tolist(), strict=True):
            assert numbers == [0] * (len(numbers) - len(text)) + numbers_of(text)
        for row in rows:
            known[row] = texts[row][: len(known[row]) + data.draw(st.integers(0, 1))]


def test_a_row_that_grew_unseen_is_refused():
    recurrence = Recurrence(_CPU)
    recurrence.start(3, [1, 2])
    with pytest.raises(ValueError, match=r"grow by one token between samplings, found \[2\]"):
        recurrence.follow([3], [4], torch.tensor([3]), (4, 8), torch.tensor([[1, 2, 1, 2]]).int())


@pytest.mark.parametrize("period", [1, 2, 1000])
def test_long_texts_start_in_linear_time(period):
    """64 000 tokens that all repeat: quadratic work would take minutes."""
    recurrence, text = Recurrence(_CPU), [at % period for at in range(64000)]
    recurrence.start(0, text)
    found = recurrence.follow([0], [len(text)], torch.tensor([0]), (1, 64000), ends_of([text]))
    wanted = [place if (len(text) - place) % period == 0 else 0 for place in range(len(text))]
    assert found[0].tolist() == wanted


@given(
    st.lists(st.builds(breaker, st.sets(_TOKENS), st.lists(_TOKENS, max_size=3)), max_size=4),
    st.lists(_TOKENS, max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_the_last_breaker_is_that_of_the_definition(breakers, text):
    breakers = tuple({each.tail: each for each in breakers}.values())
    pairs = [(head, list(each.tail)) for each in breakers for head in array("i", each.heads)]
    begin, end = last_break(breakers, text)
    assert len(text) - end == since_breaker(text, pairs)
    assert begin < max(end, 1)


# Whole samplers.


def _breakers():
    return (breaker([50, 51]), breaker([52], [53, 54]), breaker([52, 55], [53]))


_CHAINS = [
    (Dry(4.0, 1.01, 3),),
    (Dry(2.0, 1.02, 1, breakers=_breakers()),),
    (Dry(3.0, 1.05, 0, dry_range=90, breakers=_breakers()), NoRepeatNgram(300)),
    (NoRepeatNgram(5),),
    (NoRepeatNgram(70), Dry(1.0, 1.0, 2, dry_range=33)),
    (Dry(2.0, 1.1, 40, breakers=(breaker([52], [53] * 20),)),),
    (),
]


class Text:
    """One text under a chain of stages, and its tokens by the definition in float64."""

    def __init__(self, number, prompt):
        self.number, self.prompt = number, prompt
        self.stages = _CHAINS[number % len(_CHAINS)]
        self.tokens = [*prompt]
        self.row = None

    def logits(self):
        """A function of text and place alone; it likes the token that repeats the text."""
        at = len(self.tokens)
        generator = np.random.default_rng((self.number, at))
        logits = 2 * generator.standard_normal(_VOCABULARY)
        logits[self.tokens[at % len(self.prompt)]] += 6
        return logits.astype(np.float32)

    def wanted(self):
        x = self.logits().astype(np.float64)
        for stage in self.stages:
            x = definition(stage, x, self.prompt, self.tokens[len(self.prompt) :])
        return int(x.argmax())

    def start(self):
        params = SamplingParams(stages=(*self.stages, Temperature(0.0)))
        return RowStart(
            row=self.row, request=str(self.number), choice=0, tokens=[*self.tokens],
            prompt_length=len(self.prompt), params=params, seed=0, stop_tokens=[],
        )  # fmt: skip


def _prompt(chooser):
    """Some tokens, mostly repeated, with breakers here and there."""
    once = [chooser.randrange(50) for _ in range(chooser.choice([3, 40, 150]))]
    for _ in range(len(once) // 30):
        at = chooser.randrange(len(once))
        once[at : at + 3] = chooser.choice([[50], [52, 53, 54], [55, 53], [52, 53]])
    return once * chooser.choice([1, 2, 4])


def _event(chooser, texts, sampler, matrix):
    """A text takes a row, loses it, or is taken back."""
    text = chooser.choice(texts)
    if text.row is not None:
        sampler.release(text.row)
        text.row = None
        if chooser.random() < 0.5:
            kept = chooser.randint(len(text.prompt), len(text.tokens))
            del text.tokens[kept:]
    free = set(range(_ROWS)) - {other.row for other in texts}
    if free and chooser.random() < 0.8:
        text.row = chooser.choice(sorted(free))
        matrix[text.row] = chooser.randrange(_VOCABULARY)  # what others left behind
        matrix[text.row, : len(text.tokens)] = torch.tensor(text.tokens)
        sampler.start(text.start())


@pytest.mark.parametrize(("seed", "at_once"), [(0, 2**20), (1, 2**20), (2, 1)])
def test_texts_are_those_of_the_definition_whatever_happens(seed, at_once):
    """Rows change hands at random; two texts of each chain have one prompt, as choices have."""
    chooser = random.Random(seed)
    sampler = Sampler(_BACKEND, at_once=at_once)
    matrix = torch.zeros(_ROWS, _WIDTH, dtype=torch.int32)
    prompts = [_prompt(chooser) for _ in _CHAINS]
    texts = [Text(i, prompts[i % len(_CHAINS)]) for i in range(2 * len(_CHAINS))]
    acted = 0
    for _ in range(80):
        for _ in range(chooser.choice([0, 0, 1, 3])):
            _event(chooser, texts, sampler, matrix)
        going = [text for text in texts if text.row is not None and chooser.random() < 0.9]
        going = [text for text in going if len(text.tokens) < _WIDTH]
        if not going:
            continue
        chooser.shuffle(going)
        rows, at = [text.row for text in going], [len(text.tokens) for text in going]
        logits = np.stack([text.logits() for text in going])
        standing = Standing(rows, at, torch.tensor(at, dtype=torch.int32))
        drawn = sampler.sample(torch.from_numpy(logits), standing, matrix).tokens.tolist()
        assert drawn == [text.wanted() for text in going]
        acted += sum(int(row.argmax()) != token for row, token in zip(logits, drawn, strict=True))
        for text, row, place, token in zip(going, rows, at, drawn, strict=True):
            text.tokens.append(token)
            matrix[row, place] = token
    assert acted > 30
