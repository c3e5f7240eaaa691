"""Six-bit floats (E3M2) with one scale for every output channel."""

import torch
from aphrodite_kernels.layouts import Dense, Lookup
from aphrodite_kernels.layouts.grouped import pack_codes

from aphrodite_quant.online_groups import by_slabs, grouped
from aphrodite_quant.small_floats import magnitudes, nearest

PER_WEIGHT = 0.75

_SIZES = magnitudes(3, 2)
_WHOLE = 4
"""Codes that fill whole bytes."""


def quantize(weight: Dense) -> Lookup:
    """The largest weight of each row becomes 28; FormatError if K is not a multiple of 4."""
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Lookup:
    wide = grouped(weight, _WHOLE, "fp6").flatten(1)
    scale = wide.abs().amax(1, keepdim=True) / _SIZES[-1]
    scale = scale.where(scale > 0, 1.0)
    table = torch.tensor([*_SIZES, *(-size for size in _SIZES)], device=wide.device)
    codes = pack_codes(nearest(wide / scale, _SIZES), 6)
    return Lookup(codes, table[None], scale, weight.in_features)
