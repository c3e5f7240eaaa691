"""Eight-bit floats (E4M3) with a power of two for every 32 columns of a row.

The power is as the OCP Microscaling specification 1.0, section 6.3, has it: that of the largest
number, less 8, the largest exponent of E4M3; what is still beyond 448 becomes 448.
"""

import torch
from aphrodite_kernels.layouts import Dense, Microscaled

from aphrodite_quant.online_groups import as_e8m0, by_slabs, grouped, power_of_two, times_power

PER_WEIGHT = 1 + 1 / 32

_GROUP = 32
_LARGEST = torch.finfo(torch.float8_e4m3fn).max


def quantize(weight: Dense) -> Microscaled:
    """Each number becomes the nearest there is; FormatError if K is not a multiple of 32."""
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Microscaled:
    groups = grouped(weight, _GROUP, "mxfp8")
    exponent = power_of_two(groups, 8)
    scaled = times_power(groups, -exponent).clamp(-_LARGEST, _LARGEST).flatten(1).float()
    return Microscaled(scaled.to(torch.float8_e4m3fn), as_e8m0(exponent), _GROUP)
