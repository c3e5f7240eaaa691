"""Four or eight bits in groups as compressed-tensors' pack-quantized: W4A16, W8A16.

Rounded by GPTQ, with calibration text; `compressed_tensors:rtn` rounds each weight to the nearest
and needs none.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from aphrodite_kernels.layouts.grouped import pack_codes
from torch import Tensor
from torch.nn.functional import pad

from aphrodite_quant.compressed_config import compressed_config
from aphrodite_quant.errors import FormatError
from aphrodite_quant.grid import Coded, Grid, nearest
from aphrodite_quant.hessian import round_by_hessian
from aphrodite_quant.quantizer import Options, Quantizer, Statistics, common_group

_BITS = (4, 8)
_VARIANTS = (None, "rtn")


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """FormatError if variant, bits, group size or a shape are none of the format's."""
    options.only("compressed_tensors", "variant", "bits", "group_size", "symmetric")
    if options.bits not in (None, *_BITS):
        raise FormatError(f"format compressed_tensors: bits are 4 or 8, found {options.bits}")
    bits = int(options.bits or 4)
    if options.variant not in _VARIANTS:
        raise FormatError(
            f"compressed_tensors:{options.variant} is not known; present are compressed_tensors "
            "and compressed_tensors:rtn"
        )
    for rows, columns in shapes:
        if columns * bits % 32:
            raise FormatError(
                f"format compressed_tensors: rows of a weight {[rows, columns]} of {bits} bits do "
                "not fill whole words of 32 bits"
            )
    kind = Nearest if options.variant == "rtn" else ByHessian
    return kind(
        bits=bits,
        group=common_group("compressed_tensors", options.group_size, shapes),
        symmetric=options.symmetric is not False,
    )


@dataclass(frozen=True, kw_only=True)
class Nearest(Quantizer):
    """Each weight by itself."""

    bits: int
    group: int
    """-1: all input features."""
    symmetric: bool

    @property
    def bits_per_weight(self) -> float:
        return self.bits + 16 / max(self.group, 32)

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        weights: dict[str, Any] = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": "channel" if self.group == -1 else "group",
            "group_size": None if self.group == -1 else self.group,
        }
        return compressed_config("pack-quantized", weights, plain)

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        group = weight.shape[1] if self.group == -1 else self.group
        grid = Grid(self.bits, self.symmetric)
        if statistics is None:
            coded = nearest(weight, grid, group)
        else:
            coded = round_by_hessian(weight, statistics.hessian, grid, group, act_order=False)
        return packed(coded, self.bits, symmetric=self.symmetric)


@dataclass(frozen=True, kw_only=True)
class ByHessian(Nearest):
    """GPTQ."""

    calibrated = True


def packed(coded: Coded, bits: int, *, symmetric: bool) -> dict[str, Tensor]:
    """The format's tensors."""
    tensors = {
        "weight_packed": _words(coded.codes, bits),
        "weight_scale": coded.scale.to(torch.float16),
        "weight_shape": torch.tensor(coded.codes.shape),
    }
    if not symmetric:
        zeros = coded.zero.to(torch.uint8).T
        tensors["weight_zero_point"] = _words(zeros, bits).T.contiguous()
    return tensors


def _words(codes: Tensor, bits: int) -> Tensor:
    """Rows of codes as rows of int32, the last word of a row filled up with zeros."""
    whole = pad(codes, (0, -codes.shape[1] % (32 // bits)))
    return pack_codes(whole, bits).view(torch.int32)
