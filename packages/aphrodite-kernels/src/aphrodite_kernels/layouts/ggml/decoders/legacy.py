"""Blocks of 32: one scale, and for the types ending in 1 one minimum."""

from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import half, interleaved, planes, signed
from aphrodite_kernels.layouts.ggml.types import GgmlType


def q4_0(blocks: Tensor) -> Tensor:
    """scale, 16 bytes of nibbles; the scale times q - 8."""
    return half(blocks, 0) * (_nibbles(blocks[:, 2:]).float() - 8)


def q4_1(blocks: Tensor) -> Tensor:
    """scale, minimum, 16 bytes of nibbles."""
    return half(blocks, 0) * _nibbles(blocks[:, 4:]).float() + half(blocks, 2)


def q5_0(blocks: Tensor) -> Tensor:
    """scale, 32 fifth bits, 16 bytes of nibbles; the scale times q - 16."""
    q = _nibbles(blocks[:, 6:]) | _bits(blocks[:, 2:6]) << 4
    return half(blocks, 0) * (q.float() - 16)


def q5_1(blocks: Tensor) -> Tensor:
    """scale, minimum, 32 fifth bits, 16 bytes of nibbles."""
    q = _nibbles(blocks[:, 8:]) | _bits(blocks[:, 4:8]) << 4
    return half(blocks, 0) * q.float() + half(blocks, 2)


def q8_0(blocks: Tensor) -> Tensor:
    """scale, 32 signed bytes."""
    return half(blocks, 0) * signed(blocks, 2, 34)


def _nibbles(data: Tensor) -> Tensor:
    return planes(data, (0, 4), 15).flatten(1)


def _bits(data: Tensor) -> Tensor:
    return interleaved(data, range(8), 1)


DECODERS = {
    GgmlType.Q4_0: q4_0,
    GgmlType.Q4_1: q4_1,
    GgmlType.Q5_0: q5_0,
    GgmlType.Q5_1: q5_1,
    GgmlType.Q8_0: q8_0,
}
