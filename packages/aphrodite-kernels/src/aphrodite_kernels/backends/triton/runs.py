"""Runs of columns packed in different ways: a product of each, added up.

Columns are brought into order and scaled in the rows that are multiplied, once for all runs. Every
product is rounded to the dtype of activations before it is added, as the sum is.
"""

from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.protocols import MatMul, MatMuls


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
