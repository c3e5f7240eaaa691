"""Eight-bit integers with one scale for every output channel (compressed-tensors, int-quantized).

Activations stay as they are.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from aphrodite_kernels.layouts import Dense
from torch import Tensor

from aphrodite_quant.compressed_config import compressed_config
from aphrodite_quant.online import int8
from aphrodite_quant.quantizer import Options, Quantizer, Statistics


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """It has no options and packs any shape."""
    options.only("int8")
    return Int8()


@dataclass(frozen=True)
class Int8(Quantizer):
    """The largest weight of each row becomes 127."""

    @property
    def bits_per_weight(self) -> float:
        return 8.0

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        weights = {"num_bits": 8, "type": "int", "strategy": "channel"}
        return compressed_config("int-quantized", weights, plain)

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        packed = int8.quantize(Dense(weight))
        return {"weight": packed.weight, "weight_scale": packed.scale}
