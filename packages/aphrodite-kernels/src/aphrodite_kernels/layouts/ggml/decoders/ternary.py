"""One scale times -1, 0 and 1, or -1 and 1."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import constant, half, interleaved, planes
from aphrodite_kernels.layouts.ggml.types import GgmlType

_POWERS = (1, 3, 9, 27, 81)


Parts = tuple[Tensor, Tensor]
"""Scales [n, 1] float32, and codes [n, elements] uint8: an element is the scale times code - 1."""


def tq1_0(blocks: Tensor) -> Parts:
    """48 bytes of five trits, 4 of four, scale; trit n is 3 (3^n byte mod 256) // 256."""
    parts = (_trits(blocks[:, :32], 5), _trits(blocks[:, 32:48], 5), _trits(blocks[:, 48:52], 4))
    return half(blocks, 52), torch.cat(parts, 1).to(torch.uint8)


def tq2_0(blocks: Tensor) -> Parts:
    """64 bytes of 2-bit values, scale."""
    pairs = planes(blocks[:, :64].reshape(len(blocks), -1, 32), (0, 2, 4, 6), 3).flatten(1)
    return half(blocks, 64), pairs


def q1_0(blocks: Tensor) -> Parts:
    """scale, 128 bits: the scale where a bit is set, minus it elsewhere."""
    return half(blocks, 0), interleaved(blocks[:, 2:], range(8), 1) << 1


def _trits(data: Tensor, count: int) -> Tensor:
    """Bytes [n, m] -> [n, count * m]: the first trit of all bytes first."""
    powers = constant(_POWERS[:count], torch.int32, data.device)
    fractions = data.int().unsqueeze(1) * powers[:, None] & 255
    return (fractions * 3 >> 8).flatten(1)


PARTS: Mapping[GgmlType, Callable[[Tensor], Parts]] = {
    GgmlType.TQ1_0: tq1_0,
    GgmlType.TQ2_0: tq2_0,
    GgmlType.Q1_0: q1_0,
}


def _decoder(parts_of: Callable[[Tensor], Parts]) -> Callable[[Tensor], Tensor]:
    def decode(blocks: Tensor) -> Tensor:
        scale, codes = parts_of(blocks)
        return scale * (codes.float() - 1)

    return decode


DECODERS = {kind: _decoder(parts_of) for kind, parts_of in PARTS.items()}
