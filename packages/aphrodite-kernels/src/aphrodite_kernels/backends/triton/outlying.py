# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Weights with outliers beside: the product with the weight, to which theirs is added in place.

Floor: the outliers, once for every TOKENS rows, and the result, in and out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_kernels.protocols import Embed, Embeds, MatMul, MatMuls

_TOKENS = 16
_BLOCK = 128
"""Outliers at a time: more than most rows have."""


@triton.jit(do_not_specialize=["rows"])
def add_sparse_kernel(
    x,
    starts,
    columns,
    values,
    out,
    rows,
    width,
    x_stride,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[t, n] += the sum of values * x[t, columns] of row n; out is [T, width]."""
    n = tl.program_id(0)
    token = (tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    there = token < rows
    first, after = tl.load(starts + n), tl.load(starts + n + 1)
    if first < after:
        total = tl.zeros((TOKENS,), tl.float32)
        for start in range(first, after, BLOCK):
            at = start + tl.arange(0, BLOCK)
            column = tl.load(columns + at, at < after, 0)
            value = tl.load(values + at, at < after, 0.0)
            numbers = tl.load(
                x + token[:, None] * x_stride + column[None, :],
                there[:, None] & (at < after)[None, :],
                0.0,
            )
            total += tl.sum(numbers.to(tl.float32) * value[None, :], 1)
        place = out + token * width + n
        total += tl.load(place, there, 0.0).to(tl.float32)
        tl.store(place, total.to(out.dtype.element_ty), there)


def outlying_matmul(products: MatMuls, *, steady: bool = False) -> MatMul:
    """The product, of a weight of a layout that one of `products` multiplies.

    steady: a row is rounded alike in any company.
    """

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Outlying), f"bound to {type(weight).__name__}"
        out, outliers = products[type(weight.weight)](x, weight.weight, bias), weight.outliers
        rows, width = out.shape
        tokens = 1 if steady else min(_TOKENS, triton.next_power_of_2(rows))
        add_sparse_kernel[(width, triton.cdiv(rows, tokens))](
            x,
            outliers.starts,
            outliers.columns,
            outliers.values,
            out,
            rows,
            width,
            x.stride(0),
            TOKENS=tokens,
            BLOCK=_BLOCK,
            num_warps=1 if tokens < _TOKENS else 4,
        )
        return out

    return matmul


def outlying_rows(look_ups: Embeds, any_embed: Embed, dtype: torch.dtype) -> Embed:
    """The look-up of rows, to which those of the outliers are added."""

    def look_up(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Outlying), f"bound to {type(weight).__name__}"
        found = look_ups.get(type(weight.weight), any_embed)(tokens, weight.weight, 1.0)
        return ((found.float() + weight.outliers.looked_up(tokens.long())) * scale).to(dtype)

    return look_up


def _specimen(tokens: int, num_warps: int) -> Specimen:
    types = {
        "x": "*bf16",
        "starts": "*i32",
        "columns": "*i32",
        "values": "*fp32",
        "out": "*bf16",
        "rows": "i32",
        "width": "i32",
        "x_stride": "i32",
    }
    constants: dict[str, object] = {"TOKENS": tokens, "BLOCK": _BLOCK}
    aligned = ("x", "starts", "columns", "values", "out", "width", "x_stride")
    return Specimen(add_sparse_kernel, types, constants, num_warps, aligned=aligned)


SPECIMENS = (_specimen(1, 1), _specimen(_TOKENS, 4))
