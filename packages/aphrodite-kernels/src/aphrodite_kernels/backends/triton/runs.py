# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOptionalMemberAccess=false
"""Runs of columns packed in different ways: a product of each, added up.

Columns are brought into order and scaled in the rows that are multiplied, once for all runs. Every
product is rounded to the dtype of activations before it is added, as the sum is.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import LayoutError, ShapeError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.protocols import MatMul, MatMuls

_MOST = 1 << 14
"""Columns of a row at a time."""


@triton.jit
def order_kernel(
    x,
    columns,
    scale,
    shift,
    out,
    shifted,
    x_stride,
    inputs,
    ORDERED: tl.constexpr,
    SCALED: tl.constexpr,
    SHIFTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row: out[t, k] = x[t, c] * scale[c], c = columns[k]; shifted[t] = x[t] times shift."""
    t = tl.program_id(0).to(tl.int64)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, inputs, BLOCK):
        k = start + tl.arange(0, BLOCK)
        there = k < inputs
        column = tl.load(columns + k, there, 0) if ORDERED else k
        number = tl.load(x + t * x_stride + column, there, 0.0).to(tl.float32)
        if SHIFTED:
            total += number * tl.load(shift + column, there, 0.0)
        if SCALED:
            number *= tl.load(scale + column, there, 0.0)
        tl.store(out + t * inputs + k, number.to(out.dtype.element_ty), there)
    if SHIFTED:
        tl.store(shifted + t, tl.sum(total, 0))


def runs_matmul(products: MatMuls) -> MatMul:
    """The product with runs, each of a layout that one of `products` multiplies."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        runs = _checked(x, weight)
        shifted = None
        if any(each is not None for each in (runs.columns, runs.scale, runs.shift)):
            x, shifted = _ordered(x, runs)
        head, *tail = runs.parts
        start = head.in_features
        total = products[type(head)](x[:, :start], head, bias)
        for part in tail:
            inputs = x[:, start : start + part.in_features]
            total += products[type(part)](inputs, part)
            start += part.in_features
        return total if shifted is None else total.add_(shifted)

    return matmul


def _ordered(x: Tensor, runs: Runs) -> tuple[Tensor, Tensor | None]:
    """x [T, K] as the runs have its columns, and [T, 1] float32 of what the shift adds to a row."""
    rows, inputs = x.shape
    out = torch.empty((rows, inputs), dtype=x.dtype, device=x.device)
    shifted = None
    if runs.shift is not None:
        shifted = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    block = min(triton.next_power_of_2(inputs), _MOST)
    order_kernel[(rows,)](
        x,
        runs.columns,
        runs.scale,
        runs.shift,
        out,
        shifted,
        x.stride(0),
        inputs,
        ORDERED=runs.columns is not None,
        SCALED=runs.scale is not None,
        SHIFTED=shifted is not None,
        BLOCK=block,
        num_warps=max(1, min(16, block // 512)),
    )
    return out, shifted


def _checked(x: Tensor, weight: PackedWeight) -> Runs:
    if not isinstance(weight, Runs):
        raise LayoutError(f"this product reads Runs, not {type(weight).__name__}")
    if x.ndim != 2 or x.shape[1] != weight.in_features or x.stride(1) != 1:
        raise ShapeError(
            f"rows of {weight.in_features} contiguous elements are needed, x is {tuple(x.shape)} "
            f"with strides {x.stride()}"
        )
    return weight


SPECIMENS = (
    Specimen(
        order_kernel,
        {
            **dict.fromkeys(("x", "out"), "*bf16"),
            "columns": "*i64",
            **dict.fromkeys(("scale", "shift", "shifted"), "*fp32"),
            **dict.fromkeys(("x_stride", "inputs"), "i32"),
        },
        {"ORDERED": True, "SCALED": True, "SHIFTED": True, "BLOCK": _MOST},
        num_warps=16,
        aligned=("x", "columns", "scale", "shift", "out", "shifted", "x_stride", "inputs"),
    ),
)
