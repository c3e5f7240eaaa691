"""Products with a dense weight: for each number of rows, the kernel that measures fastest.

Very few rows: a program per row of W. Some rows: tiles on tensor cores. Many: the vendor's product.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.dense_stream import stream
from aphrodite_kernels.backends.triton.dense_tiles import Tiling, Workspace, check_product
from aphrodite_kernels.backends.triton.dense_vector import WIDEST, Cut, vector
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_kernels.protocols import MatMul, Repack

Choice = TypeVar("Choice", Cut, Tiling, Mapping[int, Tiling])

CUTS = {1: Cut(1, 512, 4), 2: Cut(1, 2048, 8)}
"""By the largest number of rows."""

TILINGS = {
    16: Tiling(16, 64, 128, num_warps=4, num_stages=4),
    32: Tiling(32, 64, 128, num_warps=4, num_stages=4),
}
"""By the largest number of rows; `spread` says how programs share them. Beyond, and from two rows
on where few outputs are long sums, the vendor's product is faster.
"""

STEADY_TILINGS: Mapping[int, Mapping[int, Tiling]] = {
    4096: {
        16: Tiling(16, 32, 128, num_warps=4, num_stages=6),
        32: Tiling(32, 32, 128, num_warps=4, num_stages=6),
        128: Tiling(64, 64, 128, num_warps=4, num_stages=4),
        256: Tiling(128, 64, 128, num_warps=4, num_stages=4),
        512: Tiling(128, 128, 64, num_warps=8, num_stages=4),
        1 << 30: Tiling(256, 128, 64, num_warps=8, num_stages=3),
    },
    16384: {
        16: Tiling(16, 64, 128, num_warps=4, num_stages=4),
        32: Tiling(32, 64, 128, num_warps=4, num_stages=4),
        64: Tiling(64, 64, 128, num_warps=4, num_stages=4),
        128: Tiling(128, 64, 128, num_warps=4, num_stages=4),
        256: Tiling(256, 64, 64, num_warps=8, num_stages=5),
        1 << 30: Tiling(256, 128, 64, num_warps=8, num_stages=3),
    },
    1 << 30: {
        16: Tiling(16, 64, 128, num_warps=4, num_stages=4),
        32: Tiling(32, 64, 128, num_warps=4, num_stages=4),
        64: Tiling(64, 64, 128, num_warps=4, num_stages=4),
        128: Tiling(128, 64, 64, num_warps=4, num_stages=4),
        256: Tiling(256, 128, 64, num_warps=8, num_stages=4),
        512: Tiling(128, 128, 64, num_warps=8, num_stages=4),
        1 << 30: Tiling(256, 128, 64, num_warps=8, num_stages=4),
    },
}
"""By the largest number of outputs, then of rows. No choice changes a result's bits."""


def dense_repack(dtype: torch.dtype) -> Repack:
    """Weights in the dtype of activations, contiguous."""

    def repack(weight: PackedWeight) -> PackedWeight:
        return Dense(_matrix(weight).to(dtype).contiguous())

    return repack


def dense_matmul(workspace: Workspace) -> MatMul:
    """The fastest products, for weights that `dense_repack` has made."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        matrix = _matrix(weight)
        check_product(x, matrix)
        match choose(len(x), *matrix.shape, x.dtype, workspace.processors):
            case Cut() as cut:
                return vector(x, matrix, bias, cut)
            case Tiling() as tiling:
                return stream(x, matrix, bias, workspace, tiling)
            case None:
                return vendor(x, matrix, bias)

    return matmul


def steady_matmul(workspace: Workspace) -> MatMul:
    """Products that round a row alike in any company, for the same weights."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        matrix = _matrix(weight)
        check_product(x, matrix)
        tiling = first_of(first_of(STEADY_TILINGS, len(matrix)), len(x))
        return stream(x, matrix, bias, workspace, tiling)

    return matmul


def dequantised_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """The vendor's product with a weight of any layout, dequantised anew on each call."""
    return vendor(x, weight.dequantize(x.dtype), bias)


@cache
def choose(
    rows: int, columns: int, width: int, dtype: torch.dtype, processors: int
) -> Cut | Tiling | None:
    """How `rows` rows are multiplied by a weight [columns, width]; None: by the vendor."""
    if rows > 1 and width > 2 * columns:
        return None
    if rows <= max(CUTS) and width <= WIDEST:
        return first_of(CUTS, rows)
    if rows <= max(TILINGS) and dtype != torch.float32:  # no tensor core is exact to float32
        return spread(first_of(TILINGS, rows), rows, columns, processors)
    return None


def spread(tiling: Tiling, rows: int, columns: int, processors: int) -> Tiling:
    """A program for each tile, unless a third of the processors got none: then equal shares."""
    idle = 3 * tiling.tiles(rows, columns) < 2 * processors
    return replace(tiling, split=0) if idle else tiling


def vendor(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ (+ bias) by cuBLAS, the bias rounded to x's dtype."""
    if bias is None:
        return torch.mm(x, weight.T)
    return torch.addmm(bias.to(x.dtype), x, weight.T)


def first_of(table: Mapping[int, Choice], rows: int) -> Choice:
    """The entry for a number of rows, or of columns."""
    return next(entry for limit, entry in table.items() if rows <= limit)


def _matrix(weight: PackedWeight) -> Tensor:
    if not isinstance(weight, Dense):
        raise LayoutError(f"a dense product needs a Dense weight, not {type(weight).__name__}")
    return weight.weight
