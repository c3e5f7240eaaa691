"""Weights that consist of others: runs of columns, and what lies between two rotations.

Rows are brought into order, scaled and turned by torch, whose kernels are few microseconds each.
"""

import torch
from torch import Tensor

from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import Embed, Embeds, MatMul, MatMuls


def rotated_matmul(products: MatMuls) -> MatMul:
    """The product with a whole rotated weight, of a layout that one of `products` multiplies."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Rotated), f"bound to {type(weight).__name__}"
        inputs = weight.right.turned_back(x.float()).to(x.dtype)
        inner = products[type(weight.weight)](inputs, weight.weight)
        product = weight.left.turned(inner.float())
        return (product if bias is None else product + bias).to(x.dtype)

    return matmul


def runs_rows(look_ups: Embeds, any_embed: Embed, dtype: torch.dtype) -> Embed:
    """The look-up of rows, of each run first."""

    def look_up(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Runs), f"bound to {type(weight).__name__}"
        found = [
            look_ups.get(type(part), any_embed)(tokens, part, 1.0).float() for part in weight.parts
        ]
        return (weight.arranged(torch.cat(found, 1)) * scale).to(dtype)

    return look_up


def sourced_rows(any_embed: Embed) -> Embed:
    """The look-up of rows in the source."""

    def look_up(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Sourced), f"bound to {type(weight).__name__}"
        return any_embed(tokens, weight.source, scale)

    return look_up
