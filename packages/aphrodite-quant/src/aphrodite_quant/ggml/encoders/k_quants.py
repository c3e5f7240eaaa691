"""Blocks of 256 in sub-blocks of 16 or 32, whose own scales are small integers."""

import torch
from aphrodite_kernels.layouts import GgmlType
from torch import Tensor

from aphrodite_quant.ggml.fields import half, merged, runs
from aphrodite_quant.ggml.fit import attention, fit_affine, fit_scale, integers
from aphrodite_quant.ggml.nested import Affine, Symmetric, affine, symmetric

_STEPS = tuple(step / 10 for step in range(-10, 11))
_PAIRS = (0, 2, 4, 6)


def q2_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """16 pairs of nibbles (scale, minimum), 64 bytes of 2-bit values, scale, minimum scale."""
    found = _affine(x, importance, 16, 3, 15)
    pairs = merged(torch.stack((found.scales, found.minima), 1), (0, 4))
    codes = runs(found.codes.flatten(1), _PAIRS, 32)
    return torch.cat((pairs, codes, half(found.unit), half(found.low_unit)), 1)


def q3_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """32 bytes of third bits, 64 of 2-bit values, 16 scales of 6 bits, scale."""
    found = _symmetric(x, importance, 4, 32)
    codes, scales = found.values.flatten(1).int() + 4, found.scales.int() + 32
    parts = (
        runs(codes >> 2, range(8), 32),
        runs(codes & 3, _PAIRS, 32),
        runs(scales & 15, (0, 4), 8),
        runs(scales >> 4, _PAIRS, 4),
        half(found.unit),
    )
    return torch.cat(parts, 1)


def q4_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """scale, minimum scale, 8 scales and 8 minima of 6 bits, 128 bytes of nibbles."""
    found = _affine(x, importance, 32, 15, 63)
    return torch.cat((_heads(found), runs(found.codes.flatten(1), (0, 4), 32)), 1)


def q5_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """As Q4_K, with 32 bytes of fifth bits before the nibbles."""
    found = _affine(x, importance, 32, 31, 63)
    codes = found.codes.flatten(1).int()
    fifth = runs(codes >> 4, range(8), 32)
    return torch.cat((_heads(found), fifth, runs(codes & 15, (0, 4), 32)), 1)


def q6_k(x: Tensor, importance: Tensor | None) -> Tensor:
    """128 bytes of low nibbles, 64 of high pairs, 16 signed scales, scale."""
    found = _symmetric(x, importance, 32, 128)
    codes = found.values.flatten(1).int() + 32
    low, high = runs(codes & 15, (0, 4), 64), runs(codes >> 4, _PAIRS, 32)
    scales = found.scales.to(torch.int8).view(torch.uint8)
    return torch.cat((low, high, scales, half(found.unit)), 1)


def _symmetric(x: Tensor, importance: Tensor | None, reach: int, most: int) -> Symmetric:
    parts, weight = _parts(x, importance, 16)
    nearest = integers(-reach, reach - 1)
    scales = fit_scale(parts, weight, nearest, -reach, _STEPS)
    return symmetric(parts, weight, scales, nearest, -most)


def _affine(x: Tensor, importance: Tensor | None, run: int, top: int, most: int) -> Affine:
    parts, weight = _parts(x, importance, run)
    scales, minima = fit_affine(parts, weight, top, _STEPS, free=False)
    return affine(parts, weight, scales, -minima, top, most)


def _parts(x: Tensor, importance: Tensor | None, run: int) -> tuple[Tensor, Tensor]:
    """Sub-blocks [n, s, run] and the weights of their errors."""
    parts = x.view(len(x), -1, run)
    return parts, attention(parts, None if importance is None else importance.view_as(parts))


def _heads(found: Affine) -> Tensor:
    """Both scales; then scales and minima of 6 bits in 12 bytes, the last four of each split."""
    scales, minima = found.scales.int(), found.minima.int()
    first, last = scales[:, :4], scales[:, 4:]
    low, late = minima[:, :4], minima[:, 4:]
    packed = (first | last >> 4 << 6, low | late >> 4 << 6, last & 15 | (late & 15) << 4)
    sixes = torch.cat(packed, 1).to(torch.uint8)
    return torch.cat((half(found.unit), half(found.low_unit), sixes), 1)


ENCODERS = {
    GgmlType.Q2_K: q2_k,
    GgmlType.Q3_K: q3_k,
    GgmlType.Q4_K: q4_k,
    GgmlType.Q5_K: q5_k,
    GgmlType.Q6_K: q6_k,
}
