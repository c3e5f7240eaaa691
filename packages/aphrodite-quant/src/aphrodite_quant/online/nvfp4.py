"""Four-bit floats (E2M1) with an eight-bit scale (E4M3) for every 16 columns, and one for all.

The largest number of the matrix becomes 448 times 6, the largest of each 16 becomes 6.
"""

from functools import partial

import torch
from aphrodite_kernels.layouts import Dense, Microscaled
from aphrodite_kernels.layouts.grouped import pack_codes
from torch import Tensor

from aphrodite_quant.online_groups import by_slabs, grouped
from aphrodite_quant.small_floats import magnitudes, nearest

PER_WEIGHT = 0.5 + 1 / 16

_GROUP = 16
_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST = 2.0**-9
_SIZES = magnitudes(2, 1)


def quantize(weight: Dense) -> Microscaled:
    """Each number becomes the nearest there is; FormatError if K is not a multiple of 16."""
    size = torch.stack(weight.weight.aminmax()).abs().amax().float()
    outer = size / (_LARGEST * _SIZES[-1])
    return by_slabs(weight, partial(_quantize, outer=outer.where(outer > 0, 1.0)))


def _quantize(weight: Dense, outer: Tensor) -> Microscaled:
    groups = grouped(weight, _GROUP, "nvfp4")
    scale = groups.abs().amax(2) / _SIZES[-1] / outer
    scale = scale.clamp(_SMALLEST, _LARGEST).to(torch.float8_e4m3fn)
    scaled = (groups / (scale.float() * outer)[..., None]).flatten(1)
    rows = outer.reshape(1, 1).repeat(len(scaled), 1)
    return Microscaled(pack_codes(nearest(scaled, _SIZES), 4), scale, _GROUP, rows)
