"""Four-bit integers with a scale and a zero point for every 64 columns of a row."""

import torch
from aphrodite_kernels.layouts import Dense, Grouped

from aphrodite_quant.online_groups import by_slabs, grouped

PER_WEIGHT = 0.5 + 4 / 64

_GROUP, _BITS = 64, 4
_TOP = (1 << _BITS) - 1
_SMALLEST = 2.0**-24
"""The smallest float16 above 0."""


def quantize(weight: Dense) -> Grouped:
    """From the smallest (at most 0) to the largest (at least 0) of 64 in 15 equal steps.

    FormatError if K is not a multiple of 64.
    """
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Grouped:
    groups = grouped(weight, _GROUP, "int4")
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = ((high - low) / _TOP).clamp(min=_SMALLEST)
    zero = (-low / scale).round().clamp(0, _TOP)
    scale = scale.half()
    codes = (groups / scale.float()[..., None] + zero[..., None]).round().clamp(0, _TOP)
    return Grouped.pack(codes.flatten(1).to(torch.uint8), scale, zero.half(), _BITS, _GROUP)
