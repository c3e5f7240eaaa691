"""Four-bit floats with an eight-bit float for every 16 columns (compressed-tensors' nvfp4).

The scales of a matrix share a divisor, `weight_global_scale`, that brings the largest to 448.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aphrodite_quant.compressed_config import four_bit_floats
from aphrodite_quant.quantizer import Options, Quantizer, Statistics, common_group
from aphrodite_quant.small_floats import magnitudes, nearest

_GROUP = 16
_LARGEST = 6.0
_LARGEST_SCALE = torch.finfo(torch.float8_e4m3fn).max
_LEAST_SCALE = torch.finfo(torch.float8_e4m3fn).smallest_normal


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """It has no options; FormatError if columns are not a multiple of 16."""
    options.only("nvfp4")
    common_group("nvfp4", _GROUP, shapes)
    return Nvfp4()


@dataclass(frozen=True)
class Nvfp4(Quantizer):
    """The largest weight of each group becomes about 6."""

    @property
    def bits_per_weight(self) -> float:
        return 4 + 8 / _GROUP

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return four_bit_floats(
            "nvfp4-pack-quantized", "tensor_group", _GROUP, "float8_e4m3fn", plain
        )

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        groups = weight.unflatten(1, (-1, _GROUP))
        peak = groups.abs().amax(2)
        largest = peak.amax().clamp(min=torch.finfo(torch.float32).tiny)
        divisor = _LARGEST_SCALE * _LARGEST / largest
        scale = (peak * divisor / _LARGEST).clamp(_LEAST_SCALE, _LARGEST_SCALE)
        scale = scale.to(torch.float8_e4m3fn)
        steps = groups * divisor / scale.float()[..., None]
        codes = nearest(steps.flatten(1), magnitudes(2, 1))
        return {
            "weight_packed": codes[:, ::2] | codes[:, 1::2] << 4,
            "weight_scale": scale,
            "weight_global_scale": divisor.reshape(1),
        }
