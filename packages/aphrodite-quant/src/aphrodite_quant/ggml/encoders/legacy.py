"""Blocks of 32: one scale, and for the types ending in 1 one minimum."""

import torch
from aphrodite_kernels.layouts import GgmlType
from torch import Tensor

from aphrodite_quant.ggml.fields import half, joined, runs
from aphrodite_quant.ggml.fit import as_half, attention, fit_affine, fit_scale, integers, inverse

_STEPS = tuple(step / 20 for step in range(-18, 19))


def q4_0(x: Tensor, importance: Tensor | None) -> Tensor:
    """The number of largest magnitude becomes -8."""
    scale, codes = _signed(x, importance, 8)
    return torch.cat((half(scale), runs(codes, (0, 4), 16)), 1)


def q4_1(x: Tensor, importance: Tensor | None) -> Tensor:
    """The least number becomes 0, the largest 15."""
    scale, minimum, codes = _affine(x, importance, 15)
    return torch.cat((half(scale), half(minimum), runs(codes, (0, 4), 16)), 1)


def q5_0(x: Tensor, importance: Tensor | None) -> Tensor:
    """The number of largest magnitude becomes -16."""
    scale, codes = _signed(x, importance, 16)
    fifth = joined(codes >> 4, range(8))
    return torch.cat((half(scale), fifth, runs(codes & 15, (0, 4), 16)), 1)


def q5_1(x: Tensor, importance: Tensor | None) -> Tensor:
    """The least number becomes 0, the largest 31."""
    scale, minimum, codes = _affine(x, importance, 31)
    fifth = joined(codes >> 4, range(8))
    return torch.cat((half(scale), half(minimum), fifth, runs(codes & 15, (0, 4), 16)), 1)


def q8_0(x: Tensor, importance: Tensor | None) -> Tensor:
    """The number of largest magnitude becomes 127 or -127."""
    if importance is None:
        scale = x.abs().amax(1) / 127
    else:
        nearest = integers(-127, 127)
        scale = fit_scale(x, attention(x, importance), nearest, 127, _STEPS)
    scaled = x * inverse(scale)[:, None]
    codes = (scaled.abs() + 0.5).floor().clamp(max=127).copysign(scaled)
    return torch.cat((half(scale), codes.to(torch.int8).view(torch.uint8)), 1)


def _signed(x: Tensor, importance: Tensor | None, reach: int) -> tuple[Tensor, Tensor]:
    """Scale [n] and codes [n, 32] int32 from 0 to 2 reach - 1, which stand for code - reach."""
    if importance is None:
        peak = x.gather(1, x.abs().argmax(1, keepdim=True)).squeeze(1)
        scale = peak / -reach
    else:
        nearest = integers(-reach, reach - 1)
        scale = as_half(fit_scale(x, attention(x, importance), nearest, -reach, _STEPS))
    scaled = x * inverse(scale)[:, None] + (reach + 0.5)
    return scale, scaled.trunc().clamp(0, 2 * reach - 1).int()


def _affine(x: Tensor, importance: Tensor | None, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and minimum [n], codes [n, 32] int32 from 0 to `top`."""
    if importance is None:
        minimum = x.amin(1)
        scale = (x.amax(1) - minimum) / top
    else:
        found = fit_affine(x, attention(x, importance), top, _STEPS, free=True)
        scale, minimum = as_half(found[0]), as_half(found[1])
    scaled = (x - minimum[:, None]) * inverse(scale)[:, None] + 0.5
    return scale, minimum, scaled.trunc().clamp(0, top).int()


ENCODERS = {
    GgmlType.Q4_0: q4_0,
    GgmlType.Q4_1: q4_1,
    GgmlType.Q5_0: q5_0,
    GgmlType.Q5_1: q5_1,
    GgmlType.Q8_0: q8_0,
}
