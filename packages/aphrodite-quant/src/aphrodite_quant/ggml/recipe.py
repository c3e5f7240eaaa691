"""Which ggml type each tensor of a model gets.

A recipe has a main type. Two matrices matter more than others of their size, the projection of
values and the second of the MLP: they have `more` in an eighth of the layers at either end and in
every third between (names ending in _m), or in all layers (q3_k_l, q2_k). The head has `head`, and
so has the embedding if it is the head. Tensors of one dimension stay float32; a matrix whose rows
do not divide into blocks gets the nearest type with smaller ones, and failing that float16.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from aphrodite_kernels.layouts import GgmlType

from aphrodite_quant.errors import FormatError

_SENSITIVE = re.compile(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight")
_SMALLER_BLOCKS: Mapping[GgmlType, GgmlType] = {
    GgmlType.Q2_K: GgmlType.IQ4_NL,
    GgmlType.Q3_K: GgmlType.IQ4_NL,
    GgmlType.Q4_K: GgmlType.Q5_0,
    GgmlType.Q5_K: GgmlType.Q5_1,
    GgmlType.Q6_K: GgmlType.Q8_0,
    GgmlType.IQ4_XS: GgmlType.IQ4_NL,
    GgmlType.TQ1_0: GgmlType.Q4_0,
    GgmlType.TQ2_0: GgmlType.Q4_0,
    GgmlType.Q1_0: GgmlType.Q4_0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named mixture of types."""

    name: str
    main: GgmlType | torch.dtype
    more: GgmlType | torch.dtype
    """Of the sensitive matrices."""
    where: Literal["some", "all"] = "some"
    """In which layers they have it."""
    head: GgmlType | torch.dtype
    file_type: int
    """`general.file_type`."""

    def type_of(
        self, name: str, shape: tuple[int, ...], *, layers: int, tied: bool
    ) -> GgmlType | torch.dtype:
        """Of the tensor of that GGUF name and shape, in a model of so many layers."""
        if len(shape) == 1 or prod(shape[:-1]) == 1 or "norm" in name:
            return torch.float32
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            return _fitting(self.head, shape[-1])
        match = _SENSITIVE.fullmatch(name)
        if match and (self.where == "all" or _counts_more(int(match[1]), layers)):
            return _fitting(self.more, shape[-1])
        return _fitting(self.main, shape[-1])


def find_recipe(name: str) -> Recipe:
    """The one of that name, in whatever case; FormatError if there is none."""
    if name.lower() not in RECIPES:
        raise FormatError(f"gguf:{name} is not known; present are gguf:{', gguf:'.join(RECIPES)}")
    return RECIPES[name.lower()]


def _counts_more(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: GgmlType | torch.dtype, columns: int) -> GgmlType | torch.dtype:
    if not isinstance(kind, GgmlType) or columns % kind.block_size == 0:
        return kind
    smaller = _SMALLER_BLOCKS.get(kind)
    return smaller if smaller is not None and columns % smaller.block_size == 0 else torch.float16


def _recipe(
    name: str,
    main: GgmlType | torch.dtype,
    file_type: int,
    more: GgmlType | None = None,
    where: Literal["some", "all"] = "some",
) -> Recipe:
    small = isinstance(main, GgmlType) and main != GgmlType.Q8_0
    head = GgmlType.Q6_K if small else main
    return Recipe(
        name=name, main=main, more=more or main, where=where, head=head, file_type=file_type
    )


RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _recipe("f32", torch.float32, 0),
        _recipe("f16", torch.float16, 1),
        _recipe("bf16", torch.bfloat16, 32),
        _recipe("q8_0", GgmlType.Q8_0, 7),
        _recipe("q6_k", GgmlType.Q6_K, 18),
        _recipe("q5_k_m", GgmlType.Q5_K, 17, GgmlType.Q6_K),
        _recipe("q5_k_s", GgmlType.Q5_K, 16),
        _recipe("q5_1", GgmlType.Q5_1, 9),
        _recipe("q5_0", GgmlType.Q5_0, 8),
        _recipe("q4_k_m", GgmlType.Q4_K, 15, GgmlType.Q6_K),
        _recipe("q4_k_s", GgmlType.Q4_K, 14),
        _recipe("q4_1", GgmlType.Q4_1, 3),
        _recipe("q4_0", GgmlType.Q4_0, 2),
        _recipe("iq4_nl", GgmlType.IQ4_NL, 25),
        _recipe("iq4_xs", GgmlType.IQ4_XS, 30),
        _recipe("mxfp4", GgmlType.MXFP4, 38),
        _recipe("q3_k_l", GgmlType.Q3_K, 13, GgmlType.Q5_K, "all"),
        _recipe("q3_k_m", GgmlType.Q3_K, 12, GgmlType.Q5_K),
        _recipe("q3_k_s", GgmlType.Q3_K, 11),
        _recipe("q2_k", GgmlType.Q2_K, 10, GgmlType.Q4_K, "all"),
        _recipe("tq2_0", GgmlType.TQ2_0, 37),
        _recipe("tq1_0", GgmlType.TQ1_0, 36),
        _recipe("q1_0", GgmlType.Q1_0, 40),
    )
}
"""Every recipe by its name."""
