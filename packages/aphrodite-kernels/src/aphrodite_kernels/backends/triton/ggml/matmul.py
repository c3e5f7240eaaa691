"""Products with a fragmented weight: for each number of rows, the way that measures fastest.

Few rows: the kernel that reads records. Many: rows of the weight are made dense in a workspace,
part by part, and the vendor multiplies; a part is small enough to stay in the cache of the device.
"""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.dequantize import dequantize
from aphrodite_kernels.backends.triton.ggml.encoding import TILE, UNIT
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.ggml.product import Shape, product
from aphrodite_kernels.errors import LayoutError, ShapeError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.protocols import MatMul

FEW = 96
"""Rows up to which records are multiplied as they are."""

PART = 1 << 25
"""Elements made dense at a time."""

EIGHTS = {8: 1, 16: 2}
"""Eights of rows of a program, by the largest number of rows; beyond: 4."""

DIRECT = 8
"""Rows up to which inputs are read as they came."""

_PROGRAMS = 4 * 132 * 6
"""Warps that keep an H200 busy: six to each scheduler."""


class PartWorkspace:
    """Dense parts of weights, one after the other, in memory that is taken once.

    Captured graphs remember addresses, so memory is never given back: a part that does not fit (a
    row of more than PART elements, another dtype) gets more, once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._taken: dict[torch.dtype, list[Tensor]] = {}

    def take(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """A matrix [rows, columns] of anything."""
        needed = rows * columns
        buffers = self._taken.setdefault(dtype, [])
        if not buffers or buffers[-1].numel() < needed:
            size = max(PART, needed)
            buffers.append(torch.empty(size, dtype=dtype, device=self._device))
        return buffers[-1][:needed].view(rows, columns)


def ggml_matmul(workspace: PartWorkspace, *, overlapped: bool) -> MatMul:
    """The fastest products."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        checked = _checked(x, weight)
        if len(x) > FEW:
            return by_parts(x, checked, bias, workspace)
        shape = shape_for(len(x), len(checked.records), checked.inputs)
        return product(x, checked, bias, shape, overlapped=overlapped)

    return matmul


def steady_ggml_matmul(*, overlapped: bool) -> MatMul:
    """Products that round a row alike in any company: one order along K for every row count."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        checked = _checked(x, weight)
        shape = shape_for(len(x), len(checked.records), checked.inputs)
        return product(x, checked, bias, replace(shape, arranged=True), overlapped=overlapped)

    return matmul


@cache
def shape_for(rows: int, tiles: int, inputs: int) -> Shape:
    """What a program computes; how many warps share K does not depend on the rows."""
    units = -(-inputs // UNIT)
    deep = 1
    while deep < 8 and 2 * deep <= units and tiles * deep < _PROGRAMS:
        deep *= 2
    eights = next((eights for limit, eights in EIGHTS.items() if rows <= limit), 4)
    tiles_of_warp = 16 if interpreted() else 1  # the interpreter pays for programs alone
    if rows <= DIRECT:
        return Shape(deep, 1, tiles_of_warp, eights)
    return Shape(deep, 8 // deep, tiles_of_warp, eights, arranged=True)


def by_parts(
    x: Tensor,
    weight: Fragments,
    bias: Tensor | None,
    workspace: PartWorkspace,
    part: int = PART,
) -> Tensor:
    """x [T, K] Wᵀ (+ bias), of which W is made dense `part` elements at a time."""
    outputs, inputs = weight.outputs, weight.inputs
    out = torch.empty(len(x), outputs, dtype=x.dtype, device=x.device)
    step = part_rows(outputs, inputs, part)
    for start in range(0, outputs, step):
        stop = min(start + step, outputs)
        dense = workspace.take(stop - start, inputs, x.dtype)
        dequantize(weight, start, dense)
        torch.mm(x, dense.T, out=out[:, start:stop])
    return out if bias is None else out.add_(bias)


@cache
def part_rows(outputs: int, inputs: int, part: int) -> int:
    """Rows of a part of so many elements: all parts as equal as whole tiles allow."""
    parts = -(-outputs * inputs // part)
    return max(1, -(-outputs // (parts * TILE))) * TILE


def _checked(x: Tensor, weight: PackedWeight) -> Fragments:
    if not isinstance(weight, Fragments):
        raise LayoutError(f"this product reads Fragments, not {type(weight).__name__}")
    if x.ndim != 2 or x.shape[1] != weight.inputs or x.stride(1) != 1:
        raise ShapeError(
            f"rows of {weight.inputs} contiguous elements are needed, x is {tuple(x.shape)} with "
            f"strides {x.stride()}"
        )
    return weight
