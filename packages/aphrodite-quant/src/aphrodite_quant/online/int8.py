"""Eight-bit integers with one scale for every output channel."""

from aphrodite_kernels.layouts import Dense, Scaled
from torch import int8

from aphrodite_quant.online_groups import by_slabs

PER_WEIGHT = 1.0


def quantize(weight: Dense) -> Scaled:
    """The largest weight of each row becomes 127, the others are rounded to the nearest."""
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Scaled:
    wide = weight.weight.float()
    scale = wide.abs().amax(1, keepdim=True) / 127
    scale = scale.where(scale > 0, 1.0)
    codes = (wide / scale).round().clamp(-127, 127)
    return Scaled(codes.to(int8), scale, (1, weight.in_features))
