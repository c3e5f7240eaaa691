"""Four-bit floats (E2M1) with a power of two for every 32 columns of a row.

The power is as the OCP Microscaling specification 1.0, section 6.3, has it: that of the largest
number, less 2, the largest exponent of E2M1; what is still beyond 6 becomes 6.
"""

import torch
from aphrodite_kernels.layouts import Dense, Microscaled
from torch import Tensor

from aphrodite_quant.errors import FormatError

PER_WEIGHT = 0.5 + 1 / 32

_GROUP = 32
_BETWEEN = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Halfway from each number to the next."""


def quantize(weight: Dense) -> Microscaled:
    """Each number becomes the nearest there is; FormatError if K is not a multiple of 32."""
    if weight.in_features % _GROUP:
        raise FormatError(
            f"a weight {[weight.out_features, weight.in_features]} cannot become mxfp4: "
            f"its columns are not a multiple of {_GROUP}; choose fp8 or int8"
        )
    wide = weight.weight.float().unflatten(1, (-1, _GROUP))
    largest = wide.abs().amax(2, keepdim=True)
    exponent = (largest.frexp().exponent - 3).clamp(-127, 127).where(largest > 0, -127)
    scaled = wide.double() / torch.exp2(exponent.double())
    codes = nearest_codes(scaled.flatten(1).float())
    scale = (exponent.squeeze(2) + 127).to(torch.uint8).view(torch.float8_e8m0fnu)
    return Microscaled(codes[:, ::2] | codes[:, 1::2] << 4, scale, _GROUP)


def nearest_codes(steps: Tensor) -> Tensor:
    """The code, uint8, of the E2M1 number that is nearest to each."""
    codes = torch.bucketize(steps.abs(), torch.tensor(_BETWEEN, device=steps.device))
    return (codes + 8 * (steps < 0)).to(torch.uint8)
