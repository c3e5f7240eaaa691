"""Cases of the ops that give tokens other logits and remove none."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.testing.case import Case, Draw

_SQUARES = (0.0, 0.3, 0.0, 2.0, -1.0)
_CUBES = (0.0, 0.0, 0.1, 1.0, 0.5)
_AIMS = (-1.0, 0.0, 0.3, 0.7, 1.0)
_DIVISORS = (1.0, 0.5, 2.0, 1e-5, 5.0)


def bend_cases() -> Iterator[Case]:
    """Divisors, curves, and probabilities to aim at."""
    for width in (1, 300, 9001):
        yield Case(f"divide-{width}", partial(_check_divide, width=width))
        yield Case(f"bend-{width}", partial(_check_bend, width=width))
        yield Case(f"prefer-{width}", partial(_check_prefer, width=width))
    yield Case("bends-failed", _check_failed)


def _kinds(draw: Draw, width: int) -> Iterator[Tensor]:
    """Logits of as many rows as there are parameters, their rows strided."""
    logits = 4 * draw.float32(len(_AIMS), width + 24)[:, 8 : 8 + width]
    yield logits
    holes = logits.clone()
    holes[:, 1::2] = -math.inf
    holes[:, 2::40] = -3e38
    yield holes
    peaked = logits.clone()
    peaked[:, width // 2] = 60
    yield peaked


def _column(draw: Draw, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, device=draw.backend.device)[:, None]


def _changed(op: Callable[[Tensor, slice], object], logits: Tensor) -> Tensor:
    """What the op makes of the rows; each must become the same by itself."""
    out, alone = logits.clone(), logits[2:4].clone()
    op(out, slice(None))
    op(alone, slice(2, 4))
    torch.testing.assert_close(alone, out[2:4], rtol=0, atol=0, equal_nan=True)
    return out


def _check_divide(draw: Draw, width: int) -> None:
    divisor = _column(draw, _DIVISORS)
    for logits in _kinds(draw, width):
        out = _changed(lambda rows, at: draw.backend.divide(rows, divisor[at]), logits)
        assert torch.equal(out, logits / divisor)


def _check_bend(draw: Draw, width: int) -> None:
    square, cube = _column(draw, _SQUARES), _column(draw, _CUBES)
    for logits in _kinds(draw, width):
        out = _changed(lambda rows, at: draw.backend.bend(rows, square[at], cube[at]), logits)
        expected = logits.clone()
        draw.reference().bend(expected, square, cube)
        assert torch.equal(out[0], logits[0]), "a row without a curve was bent"
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def _check_prefer(draw: Draw, width: int) -> None:
    aim = _column(draw, _AIMS)
    for logits in _kinds(draw, width):
        out = _changed(lambda rows, at: draw.backend.prefer(rows, aim[at]), logits)
        expected = logits.clone()
        chances = draw.reference().prefer(expected, aim)
        found = draw.backend.prefer(logits.clone(), aim)
        assert torch.equal(out[0], logits[0]), "a row without an aim was changed"
        torch.testing.assert_close(found, chances, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def _check_failed(draw: Draw) -> None:
    """Rows without a distribution still have none, and leave the others alone."""
    logits = draw.float32(5, 700)
    logits[1] = -math.inf
    logits[2, 699] = math.inf
    logits[3, 0] = math.nan
    half = torch.full((5, 1), 0.5, device=logits.device)
    expected = torch.tensor([True, False, False, False, True], device=logits.device)

    def bend(rows: Tensor, column: Tensor) -> None:
        draw.backend.bend(rows, column, column)

    ops: list[Callable[[Tensor, Tensor], object]]
    ops = [draw.backend.divide, draw.backend.prefer, bend]
    for op in ops:
        out = _changed(partial(_applied, op, half), logits)
        assert torch.equal(draw.backend.argmax(out)[1], expected)


def _applied(
    op: Callable[[Tensor, Tensor], object], column: Tensor, rows: Tensor, at: slice
) -> None:
    op(rows, column[at])
