"""Cases of the ops that look at a row's whole distribution."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.testing.case import Case, Draw

_OFF = 1e-5
"""How far a sum may be off, and a logit that is made of sums."""
_TYPICAL = (1.0, 0.5, 0.0, 0.9, 0.999, 0.05, 0.97, 0.3, 1 - 2**-24)
_TAIL_FREE = (1.0, 0.5, 1e-6, 0.9, 0.999, 0.05, 0.97, 0.3, 1 - 2**-24)
_POWERS = (1.0, 0.5, 2.0, 1.7, 1e-4, 3e4, 0.9, 7.0, 1.001)
_FAINT = 1e-12
"""Distances by which float64 cannot tell tokens apart."""


def shape_cases() -> Iterator[Case]:
    """Entropy, deviation, tail-free and typical sets, skew."""
    for width in (1, 300, 9001):
        yield Case(f"uncertainty-{width}", partial(_check_uncertainty, width=width))
        yield Case(f"deviation-{width}", partial(_check_deviation, width=width))
        yield Case(f"keep_typical-{width}", partial(_check_typical, width=width))
    for width in (1, 2, 300, 9001, 131072):
        yield Case(f"keep_tail_free-{width}", partial(_check_tail_free, width=width))
        yield Case(f"skew-{width}", partial(_check_skew, width=width))
    yield Case("shapes-failed", _check_failed)


def _kinds(draw: Draw, width: int) -> Iterator[Tensor]:
    """Logits of as many rows as there are parameters, their rows strided."""
    logits = 3 * draw.float32(len(_POWERS), width + 24)[:, 8 : 8 + width] + 20
    yield logits
    yield logits.round()
    holes = logits.clone()
    holes[:, 1::2] = -math.inf
    yield holes
    yield torch.zeros_like(logits)
    peaked = logits.clone()
    peaked[:, width // 2 :: 1000] += 12
    yield peaked


def _column(draw: Draw, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, device=draw.backend.device)[:, None]


def _check_alone(op: Callable[[Tensor, slice], None], logits: Tensor, together: Tensor) -> None:
    at = slice(3, 5)
    alone = logits[at].clone()
    op(alone, at)
    assert torch.equal(alone, together[at]), f"rows {at} become something else alone"


def _check_uncertainty(draw: Draw, width: int) -> None:
    for logits in _kinds(draw, width):
        found = draw.backend.uncertainty(logits)
        for each, expected in zip(found, draw.reference().uncertainty(logits), strict=True):
            assert each.dtype == expected.dtype
            torch.testing.assert_close(each, expected, rtol=_OFF, atol=_OFF)
        alone = draw.backend.uncertainty(logits[2:4])
        assert all(torch.equal(one, all_of[2:4]) for one, all_of in zip(alone, found, strict=True))


def _check_deviation(draw: Draw, width: int) -> None:
    for logits in _kinds(draw, width):
        for shifted in (logits, 1e-3 * logits):
            found = draw.backend.deviation(shifted)
            assert found.dtype == torch.float64
            expected = draw.reference().deviation(shifted)
            torch.testing.assert_close(found, expected, rtol=_OFF, atol=1e-12)
            assert torch.equal(draw.backend.deviation(shifted[2:4]), found[2:4])


def _check_tail_free(draw: Draw, width: int) -> None:
    """The same set, save where sums meet the share so nearly that rounding decides."""
    share = _column(draw, _TAIL_FREE)
    for logits in _kinds(draw, width):
        out = logits.clone()
        draw.backend.keep_tail_free(out, share)
        kept = out > -math.inf
        assert torch.equal(out[kept], logits[kept]), "a token that stays has another logit"
        least = logits.where(kept, math.inf).amin(-1, keepdim=True)
        assert torch.equal(kept, (logits >= least) & (logits > -math.inf))
        for off in (-_OFF, _OFF):
            bound = logits.clone()
            draw.reference().keep_tail_free(bound, (share * (1 + off)).clamp(max=1))
            larger = bound > -math.inf
            assert (kept <= larger if off > 0 else larger <= kept).all(), "another tail goes"
        _check_alone(lambda rows, at: draw.backend.keep_tail_free(rows, share[at]), logits, out)


def _check_typical(draw: Draw, width: int) -> None:
    """Kept are the tokens up to some distance, no more and no fewer than reach the share."""
    share = _column(draw, _TYPICAL)
    for logits in _kinds(draw, width):
        out = logits.clone()
        draw.backend.keep_typical(out, share)
        kept = out > -math.inf
        assert torch.equal(out[kept], logits[kept]), "a token that stays has another logit"
        assert torch.equal(out[0], logits[0]), "a share of 1 removed something"
        assert kept.any(-1).all()
        logs = logits.double().log_softmax(-1)
        distance = (logs + draw.reference().uncertainty(logits)[0]).abs()
        farthest = distance.where(kept, 0).amax(-1, keepdim=True)
        within = (distance < farthest - _OFF) & (logits > -math.inf)
        assert (within <= kept).all(), "a token nearer than others went"
        mass = logs.exp().where(kept, 0).sum(-1, keepdim=True)
        assert (mass > share - _OFF).all(), "too few tokens stayed"
        without = logs.exp().where(distance < farthest - _FAINT, 0).sum(-1, keepdim=True)
        assert (without < share + _OFF)[1:].all(), "too many tokens stayed"
        _check_alone(lambda rows, at: draw.backend.keep_typical(rows, share[at]), logits, out)


def _check_skew(draw: Draw, width: int) -> None:
    power = _column(draw, _POWERS)
    for logits in _kinds(draw, width):
        out, expected = logits.clone(), logits.clone()
        draw.backend.skew(out, power)
        draw.reference().skew(expected, power)
        assert torch.equal(out[0], logits[0]), "a power of 1 changed something"
        torch.testing.assert_close(out, expected, rtol=2e-6, atol=_OFF)
        _check_alone(lambda rows, at: draw.backend.skew(rows, power[at]), logits, out)


def _check_failed(draw: Draw) -> None:
    """Rows without a distribution still have none, and leave the others alone."""
    logits = draw.float32(5, 700)
    logits[1] = -math.inf
    logits[2, 699] = math.inf
    logits[3, 0] = math.nan
    half = torch.full((5, 1), 0.5, device=logits.device)
    expected = torch.tensor([True, False, False, False, True], device=logits.device)
    for op in (draw.backend.keep_tail_free, draw.backend.keep_typical, draw.backend.skew):
        out, alone = logits.clone(), logits[::4].clone()
        op(out, half)
        op(alone, half[::4])
        assert torch.equal(draw.backend.argmax(out)[1], expected)
        assert torch.equal(alone, out[::4])
    for numbers in (*draw.backend.uncertainty(logits)[:2], draw.backend.deviation(logits)):
        assert numbers[::4].isfinite().all()
