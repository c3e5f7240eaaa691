"""Floats of four bits, one sign, two exponent and one mantissa bit, under scales of eight bits."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import constant, multiplied, planes
from aphrodite_kernels.layouts.ggml.types import GgmlType

DOUBLED = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
"""What codes stand for, twice."""


Parts = tuple[Tensor, Tensor]
"""Scales [n, s] float32, and codes [n, elements] uint8 that stand for what is DOUBLED."""


def mxfp4(blocks: Tensor) -> Parts:
    """Blocks of 32: exponent, 16 bytes of codes; 2 ** (exponent - 128) times the doubled value."""
    exponent = blocks[:, :1].int()
    subnormal = constant((1 << 21, 1 << 22), torch.int32, blocks.device)[exponent.clamp(max=1)]
    bits = torch.where(exponent < 2, subnormal, (exponent - 1) << 23)
    return bits.view(torch.float32), _codes(blocks[:, 1:], 16)


def nvfp4(blocks: Tensor) -> Parts:
    """Blocks of 64: four scales (float8_e4m3fn, its NaN 0) for 16 each, 32 bytes of codes."""
    byte = blocks[:, :4]
    exponent = (byte >> 3 & 15).int()
    mantissa = (byte & 7).int() + 8 * (exponent > 0)
    scales = torch.ldexp(mantissa.float(), exponent.clamp(min=1) - 11)  # half: values are doubled
    scales = torch.where(byte == 0x7F, 0.0, scales)
    return scales, _codes(blocks[:, 4:], 8)


def _codes(data: Tensor, run: int) -> Tensor:
    """Each `run` bytes hold their low nibbles first, then their high ones."""
    return planes(data.reshape(len(data), -1, run), (0, 4), 15).flatten(1)


PARTS: Mapping[GgmlType, Callable[[Tensor], Parts]] = {
    GgmlType.MXFP4: mxfp4,
    GgmlType.NVFP4: nvfp4,
}


def _factors(parts_of: Callable[[Tensor], Parts]) -> Callable[[Tensor], Parts]:
    def factors(blocks: Tensor) -> Parts:
        scales, codes = parts_of(blocks)
        numbers = constant(DOUBLED, torch.float32, blocks.device)[codes.int()]
        return scales, numbers.view(*scales.shape, -1)

    return factors


DECODERS = {kind: multiplied(_factors(parts_of)) for kind, parts_of in PARTS.items()}
