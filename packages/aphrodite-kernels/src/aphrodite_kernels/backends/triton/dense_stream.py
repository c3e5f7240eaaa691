# pyright: basic
# pyright: reportCallIssue=false
"""Products of some rows with a dense weight, all processors busy to the end.

Programs have equal shares of all tiles' K (`dense_shares.py`): none waits while others finish a
last wave of tiles. With a share of one tile, or of a part of one, this is the ordinary tiled or
split-K product.

With a program for each tile a row's result is the same bits in any company: an output is the sum
over K in steps of 16, one tensor core instruction after the other, whatever tile it lies in. The
instruction's shape differs with the tile's, its arithmetic does not.

Floor: the bytes of W over the read bandwidth below about 170 rows, the arithmetic above.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.dense_shares import gathered, shares
from aphrodite_kernels.backends.triton.dense_tiles import (
    GROUP,
    NO_SCALES,
    Scales,
    Tiling,
    Workspace,
    accumulate,
    operands,
    store_tile,
    tile_origin,
    tile_specimen,
)


@triton.jit(do_not_specialize=["rows", "k_blocks", "share"])
def stream_kernel(
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
    share,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    HEIGHT: tl.constexpr,
    DEPTH: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """Blocks [program * share, (program + 1) * share) of the line of all tiles' blocks of K."""
    program = tl.program_id(0)
    tiles = tl.cdiv(rows, BLOCK_T) * tl.cdiv(columns, BLOCK_N)
    begin = program * share
    end = min(begin + share, tiles * k_blocks)
    for tile in range(begin // k_blocks, tl.cdiv(end, k_blocks)):
        row, column = tile_origin(tile, rows, columns, BLOCK_T, BLOCK_N, GROUP)
        start = tile * k_blocks
        first = max(begin - start, 0)
        last = min(end - start, k_blocks)
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
        total, whole = gathered(
            total, partials, arrivals, program, tile, first, last, k_blocks, share,
            BLOCK_T, BLOCK_N, SHARED,
        )  # fmt: skip
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


def stream(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    workspace: Workspace,
    tiling: Tiling,
    scales: Scales = NO_SCALES,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """x [T, K] Wᵀ (+ bias), W [N, K] contiguous, of the same dtype or of eight bits.

    dtype: of the result; None: that of x.
    """
    (rows, width), columns = x.shape, weight.shape[0]
    out = torch.empty((rows, columns), dtype=dtype or x.dtype, device=x.device)
    k_blocks = -(-width // tiling.block_k)
    programs, share = shares(tiling, workspace, rows=rows, columns=columns, blocks=k_blocks)
    inputs, weights, are_described = operands(x, weight, workspace, tiling)
    stream_kernel[(programs,)](
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
        k_blocks,
        share,
        BLOCK_T=tiling.block_t,
        BLOCK_N=tiling.block_n,
        BLOCK_K=tiling.block_k,
        GROUP=GROUP,
        SHARED=tiling.split != 1,
        HAS_BIAS=bias is not None,
        DESCRIBED=are_described,
        num_warps=tiling.num_warps,
        num_stages=workspace.stages(tiling, x, weight),
        **scales.constants(tiling),
    )
    return out


_BFLOATS = (
    Tiling(16, 32, 128, num_warps=4, num_stages=6),
    Tiling(16, 64, 128, num_warps=4, num_stages=4, split=0),
    Tiling(64, 64, 128, num_warps=4, num_stages=4, split=0),
    Tiling(128, 64, 128, num_warps=4, num_stages=4),
    Tiling(128, 64, 64, num_warps=4, num_stages=4),
    Tiling(128, 128, 64, num_warps=8, num_stages=4),
    Tiling(256, 64, 64, num_warps=8, num_stages=5),
    Tiling(256, 128, 64, num_warps=8, num_stages=4),
)
_FLOATS8 = (
    (Tiling(16, 64, 128, num_warps=4, num_stages=4, split=0), ("bf16", "fp8e4nv")),
    (Tiling(64, 64, 128, num_warps=4, num_stages=4, split=0), ("bf16", "fp8e4nv")),
    (Tiling(64, 64, 256, num_warps=4, num_stages=4, split=0), ("bf16", "fp8e4nv")),
    (Tiling(128, 128, 128, num_warps=8, num_stages=3), ("bf16", "fp8e4nv")),
    (Tiling(64, 64, 128, num_warps=4, num_stages=4, split=0), ("bf16", "u8")),
    (Tiling(128, 128, 64, num_warps=8, num_stages=3), ("bf16", "u8")),
    (Tiling(128, 128, 128, num_warps=8, num_stages=3), ("bf16", "u8")),
    (Tiling(128, 128, 128, num_warps=8, num_stages=3, split=0), ("fp8e4nv", "fp8e4nv")),
    (Tiling(128, 128, 256, num_warps=8, num_stages=3, split=0), ("fp8e4nv", "fp8e4nv")),
    (Tiling(256, 128, 128, num_warps=8, num_stages=3), ("fp8e4nv", "fp8e4nv")),
)

SPECIMENS = tuple(
    tile_specimen(stream_kernel, tiling, ("k_blocks", "share"), described=described)
    for tiling in _BFLOATS
    for described in (True, False)
) + tuple(
    tile_specimen(
        stream_kernel, tiling, ("k_blocks", "share"), described=described, kinds=kinds, block=block
    )
    for tiling, kinds in _FLOATS8
    for block in ((1, 0), (128, 128))
    if block[1] == 0 or (tiling.block_t < 256 and tiling.block_k <= block[1])
    for described in ((False,) if kinds[1] == "u8" else (True, False))
)
