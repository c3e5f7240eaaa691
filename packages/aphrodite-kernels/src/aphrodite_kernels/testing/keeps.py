"""Cases of the ops that remove tokens."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.testing.case import Case, Draw

_OFF = 1e-5
"""How far a sum of probabilities may be off."""
_COUNTS = (0, 1, 2, 7, 300, -1, 2**40, 40, 1000)
_SHARES = (1.0, 0.5, 1e-6, 0.9, 0.999, 0.05, 0.97, 0.3, 1 - 2**-24)


def keep_cases() -> Iterator[Case]:
    """Thresholds, top-k and top-p, on random logits, ties, holes and logits all alike."""
    for width in (1, 300, 9001, 131072):
        for op, check in (
            ("keep", _check_keep),
            ("keep_near", _check_near),
            ("keep_up_to", _check_up_to),
            ("keep_top_k", _check_top_k),
            ("keep_top_p", _check_top_p),
        ):
            run = partial(check, width=width)
            yield Case(f"{op}-{width}", run, spare=width > 9001)
    yield Case("keep-failed", _check_failed)


def _kinds(draw: Draw, width: int) -> Iterator[Tensor]:
    """Logits of as many rows as there are counts and shares, their rows strided."""
    rows = len(_COUNTS)
    logits = 3 * draw.float32(rows, width + 24)[:, 8 : 8 + width]
    yield logits
    yield logits.round()
    holes = logits.clone()
    holes[:, 1::2] = -math.inf
    yield holes
    yield logits.sign() * 0.0  # both zeros: equal, though their bits are not
    yield 0.01 * logits
    peaked = logits.clone()
    peaked[:, width // 2] = 60
    yield peaked


def _changed(op: Callable[[Tensor], None], logits: Tensor) -> Tensor:
    """What the op makes of strided rows; each must become the same by itself."""
    wide = torch.full((len(logits), logits.shape[1] + 40), 7.0, device=logits.device)
    wide[:, 16:-24] = logits
    op(wide[:, 16:-24])
    assert (wide[:, :16] == 7).all(), "something before a row was written"
    assert (wide[:, -24:] == 7).all(), "something behind a row was written"
    return wide[:, 16:-24]


def _check_keep(draw: Draw, width: int) -> None:
    for logits in _kinds(draw, width):
        threshold = logits[:, width // 2 : width // 2 + 1].clone()
        threshold[0], threshold[1] = -math.inf, logits[1].max()
        out = _changed(lambda rows, at=threshold: draw.backend.keep(rows, at), logits)
        assert torch.equal(out, logits.where(logits >= threshold, -math.inf))


def _check_near(draw: Draw, width: int) -> None:
    gap = torch.linspace(-4, 0, len(_COUNTS), device=draw.backend.device)[:, None]
    gap[1] = -math.inf
    for logits in _kinds(draw, width):
        out = _changed(lambda rows: draw.backend.keep_near(rows, gap), logits)
        least = logits.amax(-1, keepdim=True) + gap
        assert torch.equal(out, logits.where(logits >= least, -math.inf))


def _check_up_to(draw: Draw, width: int) -> None:
    """Whatever is above the least logit that reaches a threshold goes."""
    for logits in _kinds(draw, width):
        threshold = logits[:, width // 3 : width // 3 + 1].clone()
        threshold[0], threshold[1], threshold[2] = -math.inf, 100, logits[2].max()
        least = draw.backend.least_from(logits, threshold)
        ordered = logits.double().sort(-1).values
        counts = (ordered >= threshold) & ordered.isfinite()
        first = counts.int().argmax(-1, keepdim=True)
        expected = ordered.gather(1, first).where(counts.any(-1, keepdim=True), math.inf)
        assert torch.equal(least.double(), expected)
        out = _changed(lambda rows, at=least: draw.backend.keep_up_to(rows, at), logits)
        assert torch.equal(out, logits.where(logits <= least, -math.inf))


def _check_top_k(draw: Draw, width: int) -> None:
    count = torch.tensor(_COUNTS, device=draw.backend.device)[:, None]
    for logits in _kinds(draw, width):
        out = _changed(lambda rows: draw.backend.keep_top_k(rows, count), logits)
        expected = logits.clone()
        draw.reference().keep_top_k(expected, count)
        assert torch.equal(out, expected)
        _check_alone(lambda rows, at: draw.backend.keep_top_k(rows, count[at]), logits, out)


def _check_top_p(draw: Draw, width: int) -> None:
    """Kept are all tokens from some probability up, no more and no fewer than reach the share."""
    share = torch.tensor(_SHARES, device=draw.backend.device)[:, None]
    for logits in _kinds(draw, width):
        out = _changed(lambda rows: draw.backend.keep_top_p(rows, share), logits)
        kept = out > -math.inf
        assert torch.equal(out[kept], logits[kept]), "a token that stays has another logit"
        assert torch.equal(out[0], logits[0]), "a share of 1 removed something"
        least = logits.where(kept, math.inf).amin(-1, keepdim=True)
        assert torch.equal(kept, (logits >= least) & (logits > -math.inf))
        probabilities = logits.double().softmax(-1)
        mass = probabilities.where(kept, 0).sum(-1, keepdim=True)
        assert (mass > share - _OFF).all(), "too few tokens stayed"
        without = probabilities.where(logits > least, 0).sum(-1, keepdim=True)
        assert (without < share + _OFF)[1:].all(), "too many tokens stayed"
        _check_alone(lambda rows, at: draw.backend.keep_top_p(rows, share[at]), logits, out)


def _check_alone(op: Callable[[Tensor, slice], None], logits: Tensor, together: Tensor) -> None:
    for at in (slice(1, 2), slice(3, 5)):
        alone = torch.empty_strided(together.shape, together.stride(), device=logits.device)[at]
        alone.copy_(logits[at])
        op(alone, at)
        assert torch.equal(alone, together[at]), f"rows {at} become something else alone"


def _check_failed(draw: Draw) -> None:
    """Rows without a distribution still have none, and leave the others alone."""
    logits = draw.float32(5, 700)
    logits[1] = -math.inf
    logits[2, 699] = math.inf
    logits[3, 0] = math.nan
    expected = torch.tensor([True, False, False, False, True], device=logits.device)
    device = draw.backend.device
    count, share = torch.full((5, 1), 3, device=device), torch.full((5, 1), 0.5, device=device)
    for op, limit in (
        (draw.backend.keep, logits[:, 5:6].clone()),
        (draw.backend.keep_near, share - 3),
        (draw.backend.keep_top_k, count),
        (draw.backend.keep_top_p, share),
    ):
        out = logits.clone()
        op(out, limit)
        for valid in (draw.backend.argmax(out)[1], draw.backend.draw(out, share[:, 0])[1]):
            assert torch.equal(valid, expected)
        alone = logits[::4].clone()
        op(alone, limit[::4])
        assert torch.equal(alone, out[::4])
