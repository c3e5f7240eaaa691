"""Four-bit floats (E2M1) with an eight-bit scale (E4M3) for every 16 columns, and one for all.

The largest number of the matrix becomes 448 times 6, the largest of each 16 becomes 6.
"""

import torch
from aphrodite_kernels.layouts import Dense, Microscaled
from aphrodite_kernels.layouts.grouped import pack_codes

from aphrodite_quant.online_groups import grouped
from aphrodite_quant.small_floats import magnitudes, nearest

PER_WEIGHT = 0.5 + 1 / 16

_GROUP = 16
_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST = 2.0**-9


def quantize(weight: Dense) -> Microscaled:
    """Each number becomes the nearest there is; FormatError if K is not a multiple of 16."""
    groups, sizes = grouped(weight, _GROUP, "nvfp4"), magnitudes(2, 1)
    size = groups.abs().amax(2)
    outer = size.max() / (_LARGEST * sizes[-1])
    outer = outer.where(outer > 0, 1.0)
    scale = (size / sizes[-1] / outer).clamp(_SMALLEST, _LARGEST).to(torch.float8_e4m3fn)
    scaled = (groups / (scale.float() * outer)[..., None]).flatten(1)
    rows = outer.reshape(1, 1).repeat(len(scaled), 1)
    return Microscaled(pack_codes(nearest(scaled, sizes), 4), scale, _GROUP, rows)
