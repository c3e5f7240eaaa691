"""Rows that want to know what stages do: against a float64 account of each stage's own pass."""

import math

import msgspec
import numpy as np
import pytest
import torch
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.plan import RowStart
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_kernels.backends import reference

_BACKEND = reference.create(torch.device("cpu"), threads=1, dtype=torch.float32)


def sampled(logits, *asked, min_tokens=0, at_once=2**19):
    """Tokens of rows, one for each pair of sampler fields and `explain`."""
    sampler = Sampler(_BACKEND, at_once=at_once)
    history = torch.arange(64 * 16, dtype=torch.int32).reshape(64, 16) % 5
    for row, (fields, explain) in enumerate(asked):
        params = SamplingParams(
            stages=stages_from(fields), explain=explain, min_tokens=min_tokens, seed=row
        )
        sampler.start(
            RowStart(
                row=row,
                request=str(row),
                choice=0,
                tokens=history[row, :4].tolist(),
                prompt_length=4,
                params=params,
                seed=row,
                stop_tokens=[0],
            )
        )
    rows = [*range(len(asked))]
    standing = Standing(rows, [4] * len(rows), torch.full((len(rows),), 4, dtype=torch.int32))
    return sampler.sample(logits, standing, history)


def drawn(*arguments, **options):
    """The same, on the host."""
    return sampled(*arguments, **options).read()


def numbers(probabilities):
    possible = probabilities[probabilities > 0]
    return len(possible), -(possible * np.log2(possible)).sum()


def softmax(logits):
    weights = np.exp(np.float64(logits) - np.max(logits))
    return weights / weights.sum()


def test_each_stage_in_turn():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -math.inf]])
    fields = {"temperature": 2.0, "top_k": 2, "sampler_priority": ["temperature", "top_k"]}
    (draw,) = drawn(logits, (fields, 3))
    warm = softmax([1.5, 1.0, 0.5, 0.0])
    distributions = [softmax([3, 2, 1, 0]), warm, warm[:2] / warm[:2].sum()]
    effects = draw.explanation.stages
    assert [effect.stage for effect in effects] == ["temperature", "top_k"]
    assert effects[0].fields["temperature"] == 2.0
    assert effects[1].fields == {"top_k": 2}
    for effect, before, after in zip(effects, distributions, distributions[1:], strict=False):
        assert (effect.before.candidates, effect.before.entropy) == pytest.approx(numbers(before))
        assert (effect.after.candidates, effect.after.entropy) == pytest.approx(numbers(after))
        after = np.pad(after, (0, 4 - len(after)))
        for one in effect.top:
            assert one.before == pytest.approx(before[one.token], abs=1e-6)
            assert one.after == pytest.approx(after[one.token], abs=1e-6)
    assert [one.token for one in effects[1].top] == [0, 1, 2]
    assert draw.explanation.final == effects[1].after
    tokens, probabilities = zip(*draw.explanation.top, strict=True)
    assert tokens == (0, 1)
    assert probabilities == pytest.approx(distributions[-1], abs=1e-6)
    assert draw.explanation.token == draw.token
    assert not draw.explanation.greedy


def test_what_a_stage_makes_likely_is_shown():
    (draw,) = drawn(torch.tensor([[9.0, 8.0, 7.0, 0.0]]), ({"logit_bias": {3: 50}}, 1))
    (effect,) = draw.explanation.stages
    assert [one.token for one in effect.top] == [3]
    assert effect.top[0].after == pytest.approx(1)


def test_greedy_rows():
    """They say so; what cannot change the likeliest token does not run."""
    fields = {"temperature": 0, "top_k": 2, "logit_bias": {1: 5.0}}
    plain, biased = drawn(
        torch.tensor([[2.0, 1.0, 0.5]]).repeat(2, 1), ({"temperature": 0}, 2), (fields, 2)
    )
    assert plain.explanation.greedy
    assert plain.explanation.stages == []
    assert plain.explanation.top[0] == (0, pytest.approx(softmax([2, 1, 0.5])[0]))
    assert [effect.stage for effect in biased.explanation.stages] == ["logit_bias"]
    assert biased.explanation.token == 1


def test_a_single_candidate():
    (draw,) = drawn(torch.tensor([[2.0, 1.0]]), ({"top_k": 1}, 2))
    assert str(draw.explanation.final.entropy) == "0.0"
    assert draw.explanation.top == [(0, 1.0)]


def test_half_precision_without_stages():
    (draw,) = drawn(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16), ({"temperature": 0}, 5))
    assert draw.token == 1
    assert draw.explanation.final.candidates == 2


def test_least_lengths_are_a_stage():
    (draw,) = drawn(torch.zeros(1, 4), ({}, 2), min_tokens=2)
    (effect,) = draw.explanation.stages
    assert effect.stage == "min_tokens"
    assert (effect.before.candidates, effect.after.candidates) == (4, 3)


_MIXED = [
    {"temperature": 0.7, "top_p": 0.9, "min_p": 0.02},
    {"temperature": 0},
    {"repetition_penalty": 1.3, "dry_multiplier": 1.5, "xtc_probability": 1, "xtc_threshold": 0.01},
    {},
    {"temperature": 1.5, "top_k": 20, "sampler_priority": ["temperature", "top_k"]},
    {"mirostat_mode": 2, "mirostat_tau": 3},
]


@pytest.mark.parametrize("at_once", [1, 2**19])
def test_a_watched_row_is_the_same(at_once):
    """In a crowd or alone, watched or not; and only who asked is answered."""
    logits = 3 * torch.randn(6, 500, generator=torch.Generator().manual_seed(3))
    unseen = drawn(logits, *((fields, None) for fields in _MIXED), at_once=at_once)
    asked = [None, 4, 5, 6, 7, 8]
    watched = drawn(logits, *zip(_MIXED, asked, strict=True), at_once=at_once)
    assert [draw.token for draw in watched] == [draw.token for draw in unseen]
    assert all(draw.explanation is None for draw in unseen)
    assert [draw.explanation is not None for draw in watched] == [False, *[True] * 5]
    assert [len(effect.top) for effect in watched[4].explanation.stages] == [7, 7]
    stages = [effect.stage for effect in watched[2].explanation.stages]
    assert stages == ["dry", "penalties", "xtc"]


def test_all_of_it_is_moved():
    """As on a GPU, where the next step overwrites what was not copied."""
    logits = torch.tensor([[3.0, 2.0, 1.0]])
    fields = {"temperature": 0.5, "top_k": 2}
    made, (draw,) = sampled(logits, (fields, 2)), drawn(logits, (fields, 2))
    copies = made.map(torch.clone)
    for part in (made.explained[0].spreads, made.explained[0].tokens):
        part.zero_()
    made.explained[0].probabilities.zero_()
    assert copies.read()[0].explanation == draw.explanation


def test_a_failed_row_explains_nothing():
    (draw,) = drawn(torch.full((1, 3), -math.inf), ({"top_k": 2}, 2))
    assert draw.error
    assert draw.explanation is None


def test_it_crosses_processes():
    fields = {"logit_bias": {3: 5.0}, "bad_words": [], "top_k": 3}
    (draw,) = drawn(torch.zeros(1, 9), (fields, 2))
    output = RequestOutput(id="a", choice=0, tokens=[1], explanations=[draw.explanation])
    data = msgspec.msgpack.encode(output)
    back = msgspec.msgpack.decode(data, type=RequestOutput).explanations[0]
    assert back.stages[0].fields == {"logit_bias": {3: 5.0}}
    assert back.final == draw.explanation.final
