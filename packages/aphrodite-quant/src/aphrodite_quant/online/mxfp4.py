"""Four-bit floats (E2M1) with a power of two for every 32 columns of a row.

The power is as the OCP Microscaling specification 1.0, section 6.3, has it: that of the largest
number, less 2, the largest exponent of E2M1; what is still beyond 6 becomes 6.
"""

from aphrodite_kernels.layouts import Dense, Microscaled
from aphrodite_kernels.layouts.grouped import pack_codes

from aphrodite_quant.online_groups import as_e8m0, by_slabs, grouped, power_of_two, times_power
from aphrodite_quant.small_floats import magnitudes, nearest

PER_WEIGHT = 0.5 + 1 / 32

_GROUP = 32


def quantize(weight: Dense) -> Microscaled:
    """Each number becomes the nearest there is; FormatError if K is not a multiple of 32."""
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Microscaled:
    groups = grouped(weight, _GROUP, "mxfp4")
    exponent = power_of_two(groups, 2)
    codes = nearest(times_power(groups, -exponent).flatten(1), magnitudes(2, 1))
    return Microscaled(pack_codes(codes, 4), as_e8m0(exponent), _GROUP)
