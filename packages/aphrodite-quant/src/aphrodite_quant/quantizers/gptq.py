"""GPTQ (arXiv 2210.17323) in 2, 3, 4 or 8 bits, as GPTQ checkpoints have it.

Symmetric weights are written in the first version of the format (zero points one too low), others
in the second (`checkpoint_format: gptq_v2`), in which every zero point can be told.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from aphrodite_kernels.layouts.grouped import pack_codes
from torch import Tensor

from aphrodite_quant.errors import FormatError
from aphrodite_quant.grid import Coded, Grid
from aphrodite_quant.hessian import round_by_hessian
from aphrodite_quant.quantizer import Options, Quantizer, Statistics, common_group

_BITS = (2, 3, 4, 8)


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """FormatError if bits, group size or a shape are none of the format's."""
    options.only("gptq", "bits", "group_size", "symmetric", "act_order")
    if options.bits not in (None, *_BITS):
        raise FormatError(f"format gptq: bits are 2, 3, 4 or 8, found {options.bits}")
    bits = int(options.bits or 4)
    for rows, columns in shapes:
        if rows * bits % 32 or columns * bits % 32:
            raise FormatError(
                f"format gptq: a weight {[rows, columns]} of {bits} bits does not fill whole words "
                "of 32 bits along both its sides; choose other bits"
            )
    return Gptq(
        bits=bits,
        group=common_group("gptq", options.group_size, shapes),
        symmetric=options.symmetric is not False,
        act_order=bool(options.act_order),
    )


@dataclass(frozen=True, kw_only=True)
class Gptq(Quantizer):
    """The format with its options settled."""

    bits: int
    group: int
    """-1: all input features."""
    symmetric: bool
    act_order: bool

    calibrated = True

    @property
    def bits_per_weight(self) -> float:
        return self.bits + (16 + self.bits) / max(self.group, 32)

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group,
            "sym": self.symmetric,
            "desc_act": self.act_order,
            "true_sequential": True,
            "lm_head": False,
            "checkpoint_format": "gptq" if self.symmetric else "gptq_v2",
            "pack_dtype": "int32",
            "dynamic": {f"-:^{name}$": {} for name in plain if name != "lm_head"},
        }

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        assert statistics is not None, "calibrated"
        group = weight.shape[1] if self.group == -1 else self.group
        grid = Grid(self.bits, self.symmetric)
        coded = round_by_hessian(weight, statistics.hessian, grid, group, act_order=self.act_order)
        return packed(coded, self.bits, offset=1 if self.symmetric else 0)


def packed(coded: Coded, bits: int, offset: int) -> dict[str, Tensor]:
    """The format's tensors; zero points are stored less `offset`."""
    zeros = (coded.zero.T - offset).to(torch.uint8).contiguous()
    return {
        "qweight": pack_codes(coded.codes, bits).view(torch.int32).T.contiguous(),
        "qzeros": pack_codes(zeros, bits).view(torch.int32),
        "scales": coded.scale.T.to(torch.float16).contiguous(),
        "g_idx": coded.group_of,
    }
