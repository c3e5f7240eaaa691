"""Eight-bit floats with one scale for every output channel."""

import torch
from aphrodite_kernels.layouts import Dense, Scaled

from aphrodite_quant.online_groups import by_slabs

PER_WEIGHT = 1.0

_LARGEST = torch.finfo(torch.float8_e4m3fn).max


def quantize(weight: Dense) -> Scaled:
    """The largest weight of each row becomes the largest number there is, 448."""
    return by_slabs(weight, _quantize)


def _quantize(weight: Dense) -> Scaled:
    wide = weight.weight.float()
    scale = wide.abs().amax(1, keepdim=True) / _LARGEST
    scale = scale.where(scale > 0, 1.0)
    return Scaled((wide / scale).to(torch.float8_e4m3fn), scale, (1, weight.in_features))
