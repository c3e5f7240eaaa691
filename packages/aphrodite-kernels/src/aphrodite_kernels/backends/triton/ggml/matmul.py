"""Products with a fragmented weight: for each number of rows, the way that measures fastest.

One row, and few: kernels that read records. Some hundreds: records are unpacked on their way to the
tensor cores. More: rows of the weight are made dense in a workspace, part by part, and the vendor
multiplies.
"""

from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.dense import first_of
from aphrodite_kernels.backends.triton.dense_tiles import Tiling, Workspace
from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.dequantize import dequantize
from aphrodite_kernels.backends.triton.ggml.encoding import TILE, UNIT
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.ggml.product import Shape, product
from aphrodite_kernels.backends.triton.ggml.single import single_product
from aphrodite_kernels.backends.triton.ggml.unpacked import unpacked_product
from aphrodite_kernels.errors import LayoutError, ShapeError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.protocols import MatMul

FEW = 96
"""Rows up to which records are multiplied as they are, where they are not UNPACKED."""

UNPACKED: Mapping[int, Tiling] = {
    64: Tiling(64, 64, UNIT, num_warps=4, num_stages=3, split=0, resident=3),
    128: Tiling(128, 64, UNIT, num_warps=4, num_stages=3, split=0, resident=2),
    256: Tiling(256, 128, UNIT, num_warps=8, num_stages=3, split=0),
}
"""By the largest number of rows: how records are unpacked from UNPACKED_FROM on.

128 outputs to four warps are faster at 64 rows, but with four stages some of their sums were wrong.
"""

UNPACKED_FROM = 33
"""Rows, from sm_90 on: before, registers do not hold such tiles."""

PART = 1 << 26
"""Elements made dense at a time."""

EIGHTS = {8: 1, 16: 2}
"""Eights of rows of a program, by the largest number of rows; beyond: 4."""

PROCESSORS = 132
"""Of an H100, and of an H200."""

SIDE_BY_SIDE = 512
"""Programs up to which two warps share inputs where each could decode two tiles: more programs, to
keep all processors busy (H200, 32 rows of [6144, 4096]: 16.8 us instead of 22.6)."""


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


def ggml_matmul(workspace: Workspace, parts: PartWorkspace, *, overlapped: bool) -> MatMul:
    """The fastest products."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        x, checked = _checked(x, weight)
        unpacks = workspace.descriptors and x.dtype != torch.float32
        if unpacks and UNPACKED_FROM <= len(x) <= max(UNPACKED):
            tiling = first_of(UNPACKED, len(x))
            return unpacked_product(x, checked, bias, workspace, tiling, overlapped=overlapped)
        if len(x) > FEW:
            return by_parts(x, checked, bias, parts)
        tiles = len(checked.records)
        if len(x) == 1:
            deep = deep_for(3, tiles, checked.inputs)
            together = 16 if interpreted() else 1  # the interpreter pays for programs alone
            return single_product(
                x, checked, bias, deep=deep, tiles=together, overlapped=overlapped
            )
        shape = shape_for(len(x), tiles, checked.inputs)
        return product(x, checked, bias, shape, overlapped=overlapped)

    return matmul


def steady_ggml_matmul(*, overlapped: bool) -> MatMul:
    """Products that round a row alike in any company: one order along K for every row count."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        x, checked = _checked(x, weight)
        shape = steady_shape_for(len(x), len(checked.records), checked.inputs)
        return product(x, checked, bias, shape, overlapped=overlapped)

    return matmul


@cache
def shape_for(rows: int, tiles: int, inputs: int) -> Shape:
    """What a program computes, by the times of an H100."""
    eights = eights_for(rows)
    programs = tiles * -(-rows // (8 * eights))
    return _shape(deep_for(2, programs, inputs), eights, programs)


@cache
def steady_shape_for(rows: int, tiles: int, inputs: int) -> Shape:
    """How many warps share K, and so the order of sums, does not depend on the rows."""
    eights = eights_for(rows)
    return _shape(deep_for(2, tiles, inputs), eights, tiles * -(-rows // (8 * eights)))


def deep_for(resident: int, programs: int, inputs: int) -> int:
    """Warps that share K, where each processor runs so many programs of eight warps at once.

    Eight where all run at once, since then each has the least to do; four where there are more,
    since a program that waits for its turn begins with a wait for memory.
    """
    deep = 8 if programs <= resident * PROCESSORS else 4
    while deep > -(-inputs // UNIT):
        deep //= 2
    return deep


def eights_for(rows: int) -> int:
    """Eights of rows of a program."""
    return next((eights for limit, eights in EIGHTS.items() if rows <= limit), 4)


def _shape(deep: int, eights: int, programs: int) -> Shape:
    """Four warps deep: two side by side share inputs; of many 4 eights each decodes two tiles.

    Registers are such that a processor holds 16 warps, with two tiles 12.
    """
    two = eights == 4 and programs > SIDE_BY_SIDE
    side = 2 if deep == 4 and not two else 1
    tiles = 2 if deep == 4 and two else 1
    return Shape(
        deep,
        side,
        16 if interpreted() else tiles,  # the interpreter pays for programs alone
        eights,
        held=1 if eights < 4 else 0,
        paced=eights > 1,
        registers=128 if tiles == 1 else 168,
    )


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


def _checked(x: Tensor, weight: PackedWeight) -> tuple[Tensor, Fragments]:
    """x in the stored order of columns, and the weight."""
    if not isinstance(weight, Fragments):
        raise LayoutError(f"this product reads Fragments, not {type(weight).__name__}")
    if x.ndim != 2 or x.shape[1] != weight.inputs or x.stride(1) != 1:
        raise ShapeError(
            f"rows of {weight.inputs} contiguous elements are needed, x is {tuple(x.shape)} with "
            f"strides {x.stride()}"
        )
    return (x if weight.columns is None else x.index_select(1, weight.columns)), weight
