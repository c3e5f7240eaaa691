# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false
"""Products with a dense weight in which a row's result is the same bits for every number of rows.

An output is the sum over K in steps of 16, one tensor core instruction after the other, whatever
tile it lies in: the instruction's shape differs with the number of rows, its arithmetic does not.
Where N is small, K is halved for two programs: at fixed places, and a sum of two does not depend on
who comes first. Floor: as for any product.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.dense_tiles import (
    GROUP,
    NO_SCALES,
    Scales,
    Tiling,
    Workspace,
    accumulate,
    operands,
    publish,
    slot_places,
    store_tile,
    tile_origin,
    tile_specimen,
)

_NARROW = 4096
"""Up to so many outputs K is halved."""
_HALF = 512
"""Shortest half of K."""

STEADY_TILINGS = {
    16: Tiling(16, 64, 128, num_warps=4, num_stages=4),
    32: Tiling(32, 64, 128, num_warps=4, num_stages=4),
    64: Tiling(64, 64, 128, num_warps=4, num_stages=4),
    256: Tiling(128, 128, 64, num_warps=8, num_stages=4),
    1 << 30: Tiling(256, 128, 64, num_warps=8, num_stages=4),
}
"""By the largest number of rows. No choice changes a result's bits."""

SCALED_STEADY_TILINGS = {
    16: Tiling(16, 64, 128, num_warps=4, num_stages=4),
    64: Tiling(64, 64, 128, num_warps=4, num_stages=4),
    1 << 30: Tiling(128, 128, 128, num_warps=8, num_stages=3),
}
"""For W of eight bits. Of one block_k: sums over it are what scales of blocks are applied to."""


@triton.jit(do_not_specialize=["rows", "k_blocks"])
def steady_kernel(
    x,
    weight,
    scale,
    x_scale,
    bias,
    out,
    partials,
    arrivals,
    x_stride,
    rows,
    columns,
    width,
    k_blocks,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    HALVES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    HEIGHT: tl.constexpr,
    DEPTH: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """One tile, or the first (of two) or second half of its K."""
    tile = tl.program_id(0) // HALVES
    half = tl.program_id(0) % HALVES
    row, column = tile_origin(tile, rows, columns, BLOCK_T, BLOCK_N, GROUP)
    first = k_blocks // HALVES * half
    last = first + k_blocks // HALVES
    total = accumulate(
        x,
        weight,
        scale,
        x_scale,
        x_stride,
        rows,
        columns,
        width,
        row,
        column,
        first,
        last,
        BLOCK_T,
        BLOCK_N,
        BLOCK_K,
        SCALED,
        HEIGHT,
        DEPTH,
        DESCRIBED,
    )
    whole = HALVES == 1
    if HALVES > 1:
        slot = tl.program_id(0)
        whole = publish(total, partials, arrivals, slot, tile, BLOCK_T, BLOCK_N) == 1
        if whole:
            other = slot + 1 - 2 * half
            places = slot_places(partials, other, BLOCK_T, BLOCK_N)
            total += tl.load(places, cache_modifier=".cg")
            tl.store(arrivals + tile, 0)
    if whole:
        store_tile(
            total,
            scale,
            x_scale,
            bias,
            out,
            row,
            column,
            rows,
            columns,
            BLOCK_T,
            BLOCK_N,
            HAS_BIAS,
            SCALED,
            DEPTH,
        )


def halves_of(columns: int, width: int) -> int:
    """Into how many parts K is cut: a function of the weight's shape alone."""
    return 2 if columns <= _NARROW and width % (2 * _HALF) == 0 else 1


def steady(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    workspace: Workspace,
    tiling: Tiling,
    scales: Scales = NO_SCALES,
) -> Tensor:
    """x [T, K] Wᵀ (+ bias), W [N, K] contiguous, of the same dtype or of eight bits."""
    rows, columns = x.shape[0], weight.shape[0]
    out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    chunk = rows
    if halves_of(columns, x.shape[1]) > 1:
        tall = tiling.tiles(tiling.block_t, columns)
        chunk = workspace.room(tiling) // (2 * tall) * tiling.block_t
    for first in range(0, rows, chunk):
        part = slice(first, first + chunk)
        _launch(x[part], weight, bias, out[part], workspace, tiling, scales)
    return out


def _launch(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    workspace: Workspace,
    tiling: Tiling,
    scales: Scales,
) -> None:
    (rows, width), columns = x.shape, weight.shape[0]
    halves = halves_of(columns, width)
    inputs, weights, are_described = operands(x, weight, workspace, tiling)
    steady_kernel[(tiling.tiles(rows, columns) * halves,)](
        inputs,
        weights,
        scales.weight,
        scales.x,
        bias,
        out,
        workspace.partials,
        workspace.arrivals,
        x.stride(0),
        rows,
        columns,
        width,
        -(-width // tiling.block_k),
        BLOCK_T=tiling.block_t,
        BLOCK_N=tiling.block_n,
        BLOCK_K=tiling.block_k,
        GROUP=GROUP,
        HALVES=halves,
        HAS_BIAS=bias is not None,
        DESCRIBED=are_described,
        num_warps=tiling.num_warps,
        num_stages=workspace.stages(tiling, x, weight),
        **scales.constants(tiling),
    )


SPECIMENS = tuple(
    tile_specimen(steady_kernel, tiling, ("k_blocks",), described=described, HALVES=halves)
    for tiling in STEADY_TILINGS.values()
    for described, halves in ((True, 1), (True, 2), (False, 2))
) + tuple(
    tile_specimen(
        steady_kernel,
        tiling,
        ("k_blocks",),
        described=kind != "u8",
        kinds=("bf16", kind),
        block=(128, 128),
        HALVES=2,
    )
    for tiling in SCALED_STEADY_TILINGS.values()
    for kind in ("fp8e4nv", "u8")
)
