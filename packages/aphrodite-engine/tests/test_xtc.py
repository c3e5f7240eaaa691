"""XTC: its coin, what it spares, and what it leaves."""

import math
from types import SimpleNamespace

import pytest
import torch
from aphrodite_engine.plan import RowStart
from aphrodite_engine.sampling.catalog import stage_fields
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.xtc import Xtc
from aphrodite_kernels.backends import reference

_BACKEND = reference.create(torch.device("cpu"), threads=1, dtype=torch.float32)
_SHARES = torch.tensor([0.5, 0.25, 0.2, 0.05])


def start(row, stage, seed, choice=0):
    stages = () if stage is None else (stage,)
    return RowStart(
        row=row,
        request=str(row),
        choice=choice,
        tokens=[],
        prompt_length=1,
        params=SamplingParams(stages=stages),
        seed=seed,
        stop_tokens=[],
    )


def draw(stage, count, shares=_SHARES, *, seed=None, choice=0):
    """Shares of the tokens drawn: of as many seeds, or of as many positions of one."""
    sampler = Sampler(_BACKEND)
    for row in range(count):
        sampler.start(start(row, stage, row if seed is None else seed, choice))
    positions = [1] * count if seed is None else list(range(1, count + 1))
    standing = Standing(list(range(count)), positions, torch.tensor(positions, dtype=torch.int32))
    logits = shares.log().repeat(count, 1)
    tokens = sampler.sample(logits, standing, torch.zeros(count, 4, dtype=torch.int32)).tokens
    return torch.bincount(tokens, minlength=len(shares)) / count


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_its_coin_is_independent_of_the_draw(seed, probability):
    """Were they one number, tokens drawn where XTC stands aside would be the likeliest or last."""
    count = 20000
    found = draw(Xtc(probability, 0.1), count, seed=seed)
    removed = torch.tensor([0, 0, 0.2, 0.05]) / 0.25
    wanted = probability * removed + (1 - probability) * _SHARES
    deviation = (wanted * (1 - wanted) / count).sqrt()
    assert ((found - wanted).abs() < 5 * deviation).all()


def test_the_same_seed_gives_the_same_coins():
    assert torch.equal(draw(Xtc(0.5), 500, seed=3), draw(Xtc(0.5), 500, seed=3))
    assert not torch.equal(draw(Xtc(0.5), 500, seed=3), draw(Xtc(0.5), 500, seed=4))
    assert not torch.equal(draw(Xtc(0.5), 500, seed=3), draw(Xtc(0.5), 500, seed=3, choice=1))


@pytest.mark.parametrize(
    ("stage", "left"),
    [
        (Xtc(1.0, 0.1), {2, 3}),
        (Xtc(1.0, 0.1, spared=(0,)), {0, 1, 2, 3}),
        (Xtc(1.0, 0.1, spared=(1, 3)), {0, 1, 2, 3}),
        (Xtc(1.0, 0.1, spared=(2,)), {2, 3}),  # it would have stayed anyway
        (Xtc(1.0, 0.22), {1, 2, 3}),
        (Xtc(1.0, 0.3), {0, 1, 2, 3}),  # a single one: no choice
        (Xtc(1.0, 0.0), {3}),
        (Xtc(1.0, 0.0, spared=(3,)), {3}),
    ],
    ids=str,
)
def test_what_it_leaves(stage, left):
    assert set(draw(stage, 2000).nonzero()[:, 0].tolist()) == left


def test_a_row_that_spares_a_token_changes_no_other():
    logits = _SHARES.log().repeat(3, 1)
    sampler = Sampler(_BACKEND)
    for row, spared in enumerate([(), (0, 1), (3,)]):
        sampler.start(start(row, Xtc(1.0, 0.0, spared=spared), 5))
    standing = Standing([0, 1, 2], [1] * 3, torch.ones(3, dtype=torch.int32))
    tokens = sampler.sample(logits, standing, torch.zeros(3, 4, dtype=torch.int32)).tokens
    assert tokens[0] == tokens[2] == 3
    alone = Sampler(_BACKEND)
    alone.start(start(0, None, 5))
    plain = alone.sample(logits[:1], standing.part(slice(0, 1)), torch.zeros(1, 4).int()).tokens
    assert tokens[1] == plain[0]


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.5], [0.4, 0.3, 0.3], [0.0, 1.0]])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5])
def test_a_token_stays(shares, threshold):
    """One token, ties, impossible ones: of the least likely of the likely, all equal ones stay."""
    shares = torch.tensor(shares)
    found = draw(Xtc(1.0, threshold), 300, shares)
    likely = shares[(shares >= threshold) & (shares > 0)]
    assert len(likely) < 2 or math.isclose(found[shares == likely.min()].sum(), 1)


def test_ends_and_line_breaks_are_spared_unless_asked():
    tokenizer = SimpleNamespace(end_ids=frozenset({9, 2}), line_breaks=frozenset({5}))
    params = SamplingParams(stages=(Xtc(0.5),)).resolve(tokenizer)
    assert params.stages == (Xtc(0.5, spared=(2, 5, 9)),)
    asked = SamplingParams(stages=(Xtc(0.5, xtc_removes_ends=True),))
    assert asked.resolve(tokenizer) == asked
    assert "spared" not in {each.name for each in stage_fields()}
