"""Four-bit floats with a power of two for every 32 columns (compressed-tensors' mxfp4)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from aphrodite_kernels.layouts import Dense
from torch import Tensor

from aphrodite_quant.compressed_config import four_bit_floats
from aphrodite_quant.online import mxfp4
from aphrodite_quant.quantizer import Options, Quantizer, Statistics, common_group

_GROUP = 32


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """It has no options; FormatError if columns are not a multiple of 32."""
    options.only("mxfp4")
    common_group("mxfp4", _GROUP, shapes)
    return Mxfp4()


@dataclass(frozen=True)
class Mxfp4(Quantizer):
    """Every number becomes the nearest there is."""

    @property
    def bits_per_weight(self) -> float:
        return 8 * mxfp4.PER_WEIGHT

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return four_bit_floats("mxfp4-pack-quantized", "group", _GROUP, "uint8", plain)

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        packed = mxfp4.quantize(Dense(weight))
        return {"weight_packed": packed.elements, "weight_scale": packed.scale.view(torch.uint8)}
