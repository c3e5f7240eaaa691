"""Laws that hold for every stage, whatever its parameters, the logits and the history."""

import math
from functools import partial
from typing import get_origin

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Le
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import stage_fields, stages, stages_from
from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_kernels import backend_for
from hypothesis import given, settings
from hypothesis import strategies as st
from row_starts import row_start
from test_stage_fields import typed, values_of
from test_stages import assert_same_kept, expected, run

_CPU = torch.device("cpu")
_BACKEND = backend_for(_CPU, threads=1)
_LENGTH = 30
_EACH = pytest.mark.parametrize("kind", stages(), ids=lambda kind: kind.name())

pytestmark = pytest.mark.usefixtures("one_thread")


def logits_of(chooser, size):
    """Ties, impossible tokens, and some that are out of reach of the others."""
    whole = chooser.integers(-4, 5, size)
    kinds = chooser.integers(0, chooser.integers(1, 8), size)
    rest = chooser.choice([-math.inf, -90.0, 90.0], size, p=[0.8, 0.1, 0.1])
    logits = np.choose(np.minimum(kinds, 4), [whole, 9 * chooser.normal(size=size), whole, 0, rest])
    logits[chooser.integers(size)] = chooser.integers(-4, 5)
    return logits.astype(np.float32)


def stages_of(kind, size):
    """A stage with any valid parameters; it names tokens of the vocabulary alone."""
    token = st.integers(0, size - 1)
    several = st.lists(token, min_size=1, max_size=3).map(tuple)
    made = {
        "breakers": st.just(()),
        "xtc_probability": st.sampled_from([0.0, 1.0]),
        "dry_base": st.integers(100, 250).map(lambda value: value / 100),
        "mirostat_tau": st.integers(0, 200).map(lambda value: value / 10),
        "skew": st.integers(-20, 20).map(lambda value: value / 10),
        "bad_tokens": st.lists(several, max_size=3).map(tuple),
        "token_ban_ranges": st.lists(
            st.tuples(several, st.integers(0, _LENGTH), st.integers(0, _LENGTH)), max_size=3
        ).map(tuple),
    }
    for field in fields_of(kind):
        if get_origin(field.type) is dict:
            made[field.name] = st.dictionaries(token, st.floats(-100, 100), max_size=3)
        elif field.lists_tokens:
            made[field.name] = several | st.just(())
        elif field.type is float:
            made.setdefault(field.name, values_of(field).map(lambda value: round(value, 3)))
    values = {
        field.name: made[field.name] if field.name in made else values_of(field).map(typed)
        for field in fields_of(kind)
    }
    found = st.fixed_dictionaries({}, optional=values).map(lambda chosen: kind(**chosen))
    return found.filter(lambda stage: not getattr(stage, "greedy", False))


@st.composite
def rows_of(draw, kind):
    """Several rows of a kind of stage: stages, logits, tokens, lengths of prompts and of all."""
    size = draw(st.sampled_from([1, 2, 3, 12, 40]))
    each = draw(st.lists(stages_of(kind, size), min_size=1, max_size=3))
    chooser = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = torch.from_numpy(np.stack([logits_of(chooser, size) for _ in each]))
    tokens = torch.from_numpy(chooser.integers(0, min(size, 4), (len(each), _LENGTH)))
    lengths = chooser.integers(1, _LENGTH + 1, len(each)).tolist()
    prompts = [int(chooser.integers(1, length + 1)) for length in lengths]
    return each, logits, tokens, prompts, lengths


@_EACH
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_stage(kind, data):
    each, *rows = data.draw(rows_of(kind))
    logits, tokens, prompts, lengths = rows
    out = run(each, *rows)
    for row, stage in enumerate(each):
        before, after, one = logits[row], out[row], slice(row, row + 1)
        alone = run([stage], logits[one], tokens[one], prompts[one], lengths[one])
        assert torch.equal(alone[0], after), "a row depends on others"
        assert not after.isnan().any() and after.max() < math.inf
        assert (after > -math.inf).any(), "no token is left"
        assert (after[before == -math.inf] == -math.inf).all(), "a token came back"
        if kind.keeps_argmax:
            assert after[before.argmax()] == after.max()
        if not stage.active:
            assert torch.equal(after, before)
            continue
        known = tokens[row, : lengths[row]].tolist()
        prompt, output = known[: prompts[row]], known[prompts[row] :]
        wanted = expected(stage, before.numpy(), prompt, output)
        assert_same_kept(after.numpy(), wanted, before.numpy())


# Whole chains.


def sample(rows, logits, tokens, lengths):
    """Draws of rows by id, all at once: their parameters and seeds, and where they stand."""
    sampler, matrix = Sampler(_BACKEND), torch.zeros(50, _LENGTH + 1, dtype=torch.int32)
    for row, (params, seed) in rows.items():
        length = lengths[row]
        matrix[row, :length] = tokens[row, :length]
        sampler.start(
            row_start(
                row, params=params, tokens=tokens[row, :length].tolist(), prompt_length=length // 2,
                seed=seed,
            )
        )  # fmt: skip
    ids = list(rows)
    at = [lengths[row] for row in ids]
    standing = Standing(ids, at, torch.tensor(at, dtype=torch.int32))
    return sampler.sample(logits[ids], standing, matrix).read()


@st.composite
def chains(draw, size):
    """Some stages in some order."""
    kinds = draw(st.lists(st.sampled_from([k for k in stages() if k.wire]), unique=True))
    return SamplingParams(stages=tuple(draw(stages_of(kind, size)) for kind in kinds))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_chains_draw_the_same_alone_and_in_company(data):
    size = data.draw(st.sampled_from([1, 3, 40]))
    asked = data.draw(st.lists(chains(size), min_size=2, max_size=6))
    chooser = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    logits = torch.from_numpy(np.stack([logits_of(chooser, size) for _ in asked]))
    tokens = torch.from_numpy(chooser.integers(0, min(size, 4), (len(asked), _LENGTH)))
    lengths = chooser.integers(2, _LENGTH + 1, len(asked)).tolist()
    rows = {row: (params, int(chooser.integers(2**63))) for row, params in enumerate(asked)}
    together = sample(rows, logits, tokens, lengths)
    assert sample(dict(reversed(rows.items())), logits, tokens, lengths) == together[::-1]
    for row, drawn in enumerate(together):
        assert sample({row: rows[row]}, logits, tokens, lengths) == [drawn]
        assert drawn.error is None
        assert logits[row, drawn.token] > -math.inf


# The ends of what parameters may be.


_AT_WORK = {
    "dry": {"dry_multiplier": 1.0},
    "penalties": {"repetition_penalty": 1.2, "presence_penalty": 0.5},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": 0.05},
    "temperature": {"dynatemp_range": 0.5},
    "mirostat": {"mirostat_mode": 2},
    "adaptive_p": {"adaptive_target": 0.3},
}
_NUMBERS = [each for each in stage_fields() if each.field.type in (int, float)]


@pytest.mark.parametrize("declared", _NUMBERS, ids=lambda declared: declared.name)
def test_numbers_that_tensors_cannot_hold_are_refused(declared):
    for value in (2**63, 2**64 - 1) if declared.field.type is int else (1e39, -1e39, 10**39):
        with pytest.raises(RequestError, match=declared.name) as caught:
            stages_from({declared.name: value})
        assert caught.value.field == declared.name


@pytest.mark.parametrize("declared", _NUMBERS, ids=lambda declared: declared.name)
def test_the_ends_of_a_parameter_change_no_other_row(declared):
    chooser = np.random.default_rng(0)
    logits = torch.from_numpy(np.stack([logits_of(chooser, 40) for _ in range(3)]))
    tokens, lengths = torch.from_numpy(chooser.integers(0, 4, (3, _LENGTH))), [_LENGTH] * 3
    fields = _AT_WORK.get(declared.stage.name(), {})
    plain = SamplingParams(stages=stages_from(fields))
    sent = [0, 1, *([2**31, 2**63 - 1] if declared.field.type is int else [5e-324, 1e-30, 3e38])]
    for value in filter(partial(holds, declared.field.bounds), sent):
        odd = SamplingParams(stages=stages_from({**fields, declared.name: value}))
        rows = {0: (plain, 0), 1: (odd, 1), 2: (plain, 2)}
        first, _, last = sample(rows, logits, tokens, lengths)
        assert [first] == sample({0: rows[0]}, logits, tokens, lengths)
        assert [last] == sample({2: rows[2]}, logits, tokens, lengths)


def holds(bounds, value):
    """A value is within the bounds of a field."""
    for bound in bounds:
        match bound:
            case Ge(limit) if value < limit:
                return False
            case Gt(limit) if value <= limit:
                return False
            case Le(limit) if value > limit:
                return False
    return True
