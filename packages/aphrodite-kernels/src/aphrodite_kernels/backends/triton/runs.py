"""Runs of columns packed in different ways: a product of each, added up.

Columns are brought into order and scaled in the rows that are multiplied, once for all runs. Every
product is rounded to the dtype of activations before it is added, as the sum is.
"""

from dataclasses import replace

from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.protocols import MatMul, MatMuls, Repack, Repacks, Takes


def pack_runs(packs: Repacks) -> Repack:
    """Each run as `packs` has its layout."""

    def pack(weight: PackedWeight) -> PackedWeight:
        runs = _checked(weight)
        packed = [packs[type(p)](p) if type(p) in packs else p for p in runs.parts]
        return replace(runs, parts=tuple(packed))

    return pack


def takes_runs(products: MatMuls) -> Takes:
    """Whether all runs have products."""

    def takes(weight: PackedWeight) -> bool:
        return all(type(part) in products for part in _checked(weight).parts)

    return takes


def runs_matmul(products: MatMuls) -> MatMul:
    """The product with runs, each of a layout that one of `products` multiplies."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        runs = _checked(weight)
        shifted = None if runs.shift is None else (x.float() * runs.shift).sum(1, keepdim=True)
        if runs.scale is not None:
            x = (x * runs.scale).to(x.dtype)
        if runs.columns is not None:
            x = x.index_select(1, runs.columns)
        head, *tail = runs.parts
        start = head.in_features
        total = products[type(head)](x[:, :start], head, bias)
        for part in tail:
            inputs = x[:, start : start + part.in_features]
            total += products[type(part)](inputs, part)
            start += part.in_features
        return total if shifted is None else total.add_(shifted)

    return matmul


def _checked(weight: PackedWeight) -> Runs:
    if not isinstance(weight, Runs):
        raise LayoutError(f"this product reads Runs, not {type(weight).__name__}")
    return weight
