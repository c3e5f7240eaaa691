"""Blocks of 256 in sub-blocks of 16 or 32, whose own scales are small integers."""

import torch
from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import half, planes, signed
from aphrodite_kernels.layouts.ggml.types import GgmlType


def q2_k(blocks: Tensor) -> Tensor:
    """16 pairs of nibbles (scale, minimum), 64 bytes of 2-bit values, scale, minimum scale."""
    scales = half(blocks, 80) * (blocks[:, :16] & 15).float()
    minima = half(blocks, 82) * (blocks[:, :16] >> 4).float()
    return _affine(scales, _pairs(blocks[:, 16:80]), minima)


def q3_k(blocks: Tensor) -> Tensor:
    """32 bytes of third bits, 64 of 2-bit values, 16 scales of 6 bits, scale."""
    low = planes(blocks[:, 96:104], (0, 4), 15).flatten(1)
    high = planes(blocks[:, 104:108], (0, 2, 4, 6), 3).flatten(1)
    scales = half(blocks, 108) * ((low | high << 4).float() - 32)
    third = planes(blocks[:, :32], range(8), 1).flatten(1)
    q = (_pairs(blocks[:, 32:96]) | third << 2).float() - 4
    return _scaled(scales, q)


def q4_k(blocks: Tensor) -> Tensor:
    """scale, minimum scale, 8 scales and 8 minima of 6 bits, 128 bytes of nibbles."""
    scales, minima = _scales_and_minima(blocks)
    return _affine(scales, _nibbles(blocks[:, 16:], 32), minima)


def q5_k(blocks: Tensor) -> Tensor:
    """As Q4_K, with 32 bytes of fifth bits before the nibbles."""
    scales, minima = _scales_and_minima(blocks)
    fifth = planes(blocks[:, 16:48], range(8), 1).flatten(1)
    return _affine(scales, _nibbles(blocks[:, 48:], 32) | fifth << 4, minima)


def q6_k(blocks: Tensor) -> Tensor:
    """128 bytes of low nibbles, 64 of high pairs, 16 signed scales, scale."""
    scales = half(blocks, 208) * signed(blocks, 192, 208)
    q = _nibbles(blocks[:, :128], 64) | _pairs(blocks[:, 128:192]) << 4
    return _scaled(scales, q.float() - 32)


def _scales_and_minima(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Eight 6-bit scales and minima in 12 bytes, times their scales: each [n, 8] float32."""
    first, second, third = torch.split(blocks[:, 4:16], 4, 1)
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), 1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), 1)
    return half(blocks, 0) * scales.float(), half(blocks, 2) * minima.float()


def _pairs(data: Tensor) -> Tensor:
    """Each 32 bytes hold 128 values of 2 bits: 32 lowest first."""
    return planes(data.reshape(len(data), -1, 32), (0, 2, 4, 6), 3).flatten(1)


def _nibbles(data: Tensor, run: int) -> Tensor:
    """Each `run` bytes hold their low nibbles first, then their high ones."""
    return planes(data.reshape(len(data), -1, run), (0, 4), 15).flatten(1)


def _scaled(scales: Tensor, q: Tensor) -> Tensor:
    return (scales.unsqueeze(-1) * q.view(*scales.shape, -1)).flatten(1)


def _affine(scales: Tensor, q: Tensor, minima: Tensor) -> Tensor:
    parts = q.float().view(*scales.shape, -1)
    return (scales.unsqueeze(-1) * parts - minima.unsqueeze(-1)).flatten(1)


DECODERS = {
    GgmlType.Q2_K: q2_k,
    GgmlType.Q3_K: q3_k,
    GgmlType.Q4_K: q4_k,
    GgmlType.Q5_K: q5_k,
    GgmlType.Q6_K: q6_k,
}
