"""Products with a trellis: for each number of rows, the way that measures fastest.

Few rows: decoded in the registers from which tensor cores take it. Many: decoded into a workspace,
part by part, and the vendor multiplies. Before and after, both transforms.
"""

from functools import cache

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.ggml.matmul import (
    PART,
    PartWorkspace,
    deep_for,
    eights_for,
    part_rows,
)
from aphrodite_kernels.backends.triton.trellis.dequantize import decode
from aphrodite_kernels.backends.triton.trellis.fields import TrellisFields
from aphrodite_kernels.backends.triton.trellis.product import Shape, product
from aphrodite_kernels.backends.triton.trellis.turn import turn_inputs, turn_outputs
from aphrodite_kernels.errors import LayoutError, ShapeError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.protocols import MatMul

FEW = 96
"""Rows up to which words are decoded in registers."""
REGISTERS = 128
"""Of a thread, at most."""
EARLY = 8
"""Rows up to which kernels start while the one before still runs."""


def trellis_matmul(parts: PartWorkspace, *, overlapped: bool) -> MatMul:
    """The fastest products."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        checked = _checked(x, weight)
        if len(x) > FEW or x.dtype == torch.float32:
            return by_parts(x, checked, bias, parts)
        shape = shape_for(len(x), len(checked.words), checked.inner)
        return by_lanes(x, checked, bias, shape, overlapped=overlapped)

    return matmul


def steady_trellis_matmul(*, overlapped: bool) -> MatMul:
    """Products that round a row alike in any company: one order along K for every row count."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        checked = _checked(x, weight)
        shape = steady_shape_for(len(x), len(checked.words), checked.inner)
        return by_lanes(x, checked, bias, shape, overlapped=overlapped)

    return matmul


@cache
def shape_for(rows: int, tiles: int, inputs: int) -> Shape:
    """What a program computes."""
    eights = eights_for(rows)
    return _shape(tiles * -(-rows // (8 * eights)), inputs, eights)


@cache
def steady_shape_for(rows: int, tiles: int, inputs: int) -> Shape:
    """How many warps share K, and so the order of sums, does not depend on the rows."""
    return _shape(tiles, inputs, eights_for(rows))


def _shape(programs: int, inputs: int, eights: int) -> Shape:
    """A tile alone: two that share inputs took longer at every number of rows (H200)."""
    return Shape(deep_for(2, programs, 2 * inputs), 1, eights, registers=REGISTERS)


def by_lanes(
    x: Tensor, weight: TrellisFields, bias: Tensor | None, shape: Shape, *, overlapped: bool
) -> Tensor:
    """x Wᵀ (+ bias), decoded in registers."""
    rows, early = len(x), overlapped and len(x) <= EARLY
    groups = -(-rows // (8 * shape.eights)) * shape.eights
    units = shape.units(weight.inner)
    turned = turn_inputs(x, weight.suh, torch.float16, groups=groups, units=units, overlapped=early)
    return _finished(
        product(turned, weight, rows, shape, overlapped=early),
        weight, bias, x.dtype, overlapped=early,
    )  # fmt: skip


def by_parts(
    x: Tensor, weight: TrellisFields, bias: Tensor | None, workspace: PartWorkspace
) -> Tensor:
    """x Wᵀ (+ bias), decoded PART elements at a time."""
    inputs, rows = weight.inner, len(x)
    out = torch.empty(rows, len(weight.svh), dtype=x.dtype, device=x.device)
    begin = 0
    for suh, extent in zip(weight.suh, weight.extents, strict=True):
        turned = turn_inputs(x, suh[None], x.dtype, overlapped=False)[0]
        step, end = part_rows(extent, inputs, PART), begin + extent
        for start in range(begin, end, step):
            stop = min(start + step, end)
            dense = workspace.take(stop - start, inputs, x.dtype)
            decode(weight, start, dense)
            torch.mm(turned, dense.T, out=out[:, start:stop])
        begin = end
    return _finished(out, weight, bias, x.dtype, overlapped=False)


def _finished(
    product: Tensor,
    weight: TrellisFields,
    bias: Tensor | None,
    dtype: torch.dtype,
    *,
    overlapped: bool,
) -> Tensor:
    """What comes behind the product: the transform of outputs, and those that are picked."""
    if weight.picked is None:
        return turn_outputs(product, weight.svh, bias, dtype, overlapped=overlapped)
    wide = turn_outputs(product, weight.svh, None, dtype, overlapped=overlapped)
    out = wide.index_select(1, weight.picked)
    return out if bias is None else (out + bias).to(dtype)


def _checked(x: Tensor, weight: PackedWeight) -> TrellisFields:
    if not isinstance(weight, TrellisFields):
        raise LayoutError(f"this product reads TrellisFields, not {type(weight).__name__}")
    if x.ndim != 2 or x.shape[1] != weight.in_features or x.stride(1) != 1:
        raise ShapeError(
            f"rows of {weight.in_features} contiguous elements are needed, x is {tuple(x.shape)} "
            f"with strides {x.stride()}"
        )
    return weight
