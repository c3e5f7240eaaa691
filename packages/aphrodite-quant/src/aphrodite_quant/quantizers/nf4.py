"""Four-bit NormalFloat (arXiv 2305.14314) as bitsandbytes serialises it.

A block of 64 weights is scaled by its largest; `nf4:nested` keeps those scales in eight bits.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aphrodite_quant.errors import FormatError
from aphrodite_quant.normal_float import NORMAL_FLOAT, nearest_in
from aphrodite_quant.quantizer import Options, Quantizer, Statistics

_BLOCK, _OUTER_BLOCK = 64, 256
_DECADES = 7


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """FormatError if the variant is not nested, or blocks would cross rows."""
    options.only("nf4", "variant")
    if options.variant not in (None, "nested"):
        raise FormatError(f"nf4:{options.variant} is not known; present are nf4 and nf4:nested")
    for rows, columns in shapes:
        if columns % _BLOCK:
            raise FormatError(
                f"format nf4: rows of a weight {[rows, columns]} do not divide into blocks of "
                f"{_BLOCK}"
            )
    return Nf4(nested=options.variant == "nested")


@dataclass(frozen=True)
class Nf4(Quantizer):
    """Every weight becomes the nearest of sixteen."""

    nested: bool

    @property
    def bits_per_weight(self) -> float:
        return 4 + (8 if self.nested else 32) / _BLOCK

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "load_in_8bit": False,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.nested,
            "bnb_4bit_compute_dtype": "bfloat16",
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": list(plain),
        }

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        blocks = weight.reshape(-1, _BLOCK)
        scale = blocks.abs().amax(1)
        table = torch.tensor(NORMAL_FLOAT, device=weight.device)
        codes = nearest_in(table, blocks / scale.clamp(min=1e-30)[:, None]).view(-1, 2)
        state: dict[str, Any] = {
            "quant_type": "nf4",
            "blocksize": _BLOCK,
            "dtype": "bfloat16",
            "shape": list(weight.shape),
        }
        tensors = {"weight": codes[:, :1] << 4 | codes[:, 1:], "weight.quant_map": table}
        if self.nested:
            offset = scale.mean()
            state |= {
                "nested_blocksize": _OUTER_BLOCK,
                "nested_dtype": "float32",
                "nested_offset": float(offset),
            }
            tensors |= _nested(scale - offset)
        else:
            tensors["weight.absmax"] = scale
        text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
        return tensors | {"weight.quant_state.bitsandbytes__nf4": text}


def dynamic_table() -> Tensor:
    """[256] float32: numbers from -1 to 1, finer towards 0, by which bitsandbytes tells scales.

    For each of seven decades, the finest first, twice as many as for the one before: the middles of
    equal parts of 0.1 to 1, of either sign; and 0 and 1.
    """
    found = [torch.tensor([0.0, 1.0], dtype=torch.float64)]
    for decade in range(_DECADES):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - _DECADES + 1)
        found += [middles, -middles]
    return torch.cat(found).sort().values.float()


def _nested(scale: Tensor) -> dict[str, Tensor]:
    """Scales less their mean, in eight bits and blocks of their own."""
    table = dynamic_table().to(scale.device)
    count = len(scale)
    filled = torch.nn.functional.pad(scale, (0, -count % _OUTER_BLOCK)).view(-1, _OUTER_BLOCK)
    outer = filled.abs().amax(1)
    codes = nearest_in(table, filled / outer.clamp(min=1e-30)[:, None]).flatten()[:count]
    return {
        "weight.absmax": codes,
        "weight.nested_absmax": outer,
        "weight.nested_quant_map": table,
    }
