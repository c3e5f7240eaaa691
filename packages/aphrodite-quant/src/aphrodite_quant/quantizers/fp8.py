"""Eight-bit floats (E4M3): a scale for every output channel, for the tensor, or for each block.

`fp8` and `fp8:channel`, `fp8:tensor` are written as compressed-tensors' float-quantized;
`fp8:block` with `quant_method: fp8`, scales of 128 x 128 blocks in `weight_scale_inv`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from aphrodite_kernels.layouts import Dense
from torch import Tensor
from torch.nn.functional import pad

from aphrodite_quant.compressed_config import DYNAMIC_FLOATS, compressed_config
from aphrodite_quant.errors import FormatError
from aphrodite_quant.online import fp8
from aphrodite_quant.quantizer import Options, Quantizer, Statistics

_BLOCK = 128
_LARGEST = torch.finfo(torch.float8_e4m3fn).max


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """FormatError if the variant is none of those above."""
    options.only("fp8", "variant")
    variants: dict[str, type[Quantizer]] = {"channel": Channel, "tensor": Whole, "block": Block}
    variant = options.variant or "channel"
    if variant not in variants:
        raise FormatError(f"fp8:{variant} is not known; present are fp8:{', fp8:'.join(variants)}")
    return variants[variant]()


class Eight(Quantizer):
    """What the variants share."""

    @property
    def bits_per_weight(self) -> float:
        return 8.0


@dataclass(frozen=True)
class Channel(Eight):
    """A scale for every row."""

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
        return compressed_config("float-quantized", weights, plain, DYNAMIC_FLOATS)

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        packed = fp8.quantize(Dense(weight))
        return {"weight": packed.weight, "weight_scale": packed.scale}


@dataclass(frozen=True)
class Whole(Eight):
    """One scale for the matrix."""

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        weights = {"num_bits": 8, "type": "float", "strategy": "tensor"}
        return compressed_config("float-quantized", weights, plain, DYNAMIC_FLOATS)

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        scale = _scale(weight.abs().amax().reshape(1))
        return {"weight": (weight / scale).to(torch.float8_e4m3fn), "weight_scale": scale}


@dataclass(frozen=True)
class Block(Eight):
    """A scale for every 128 x 128 weights."""

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [_BLOCK, _BLOCK],
            "modules_to_not_convert": list(plain),
        }

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        rows, columns = weight.shape
        whole = pad(weight.abs(), (0, -columns % _BLOCK, 0, -rows % _BLOCK))
        peak = whole.unflatten(1, (-1, _BLOCK)).unflatten(0, (-1, _BLOCK)).amax((1, 3))
        scale = _scale(peak)
        wide = scale.repeat_interleave(_BLOCK, 0).repeat_interleave(_BLOCK, 1)[:rows, :columns]
        return {"weight": (weight / wide).to(torch.float8_e4m3fn), "weight_scale_inv": scale}


def _scale(peak: Tensor) -> Tensor:
    """What makes the largest weight 448; 1 where all are 0."""
    return (peak / _LARGEST).where(peak > 0, 1.0)
