# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportAssignmentType=false
"""Products of very few rows with a weight: every program holds its rows of W whole.

All of a program's loads of W are under way before it needs the first. Floor: the bytes of W over
the read bandwidth; 16 bytes to a thread and load: 8 columns, or 16 of eight bits.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.dense_tiles import NO_SCALES, Scales, widened
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError

WIDEST = 32768
"""Columns of W that a program can hold."""


@triton.jit
def vector_kernel(
    x,
    weight,
    scale,
    bias,
    out,
    columns,
    x_stride,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    HEIGHT: tl.constexpr,
    DEPTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK_N columns of out for each of ROWS rows; scales as in dense_tiles.py.

    PDL: launched while the kernel before still runs; W is fetched, and only then that kernel
    waited for.
    """
    if PDL:
        cuda.gdc_launch_dependents()
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    starts = weight + tl.minimum(n, columns - 1).to(tl.int64)[:, None] * K
    STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    PART: tl.constexpr = DEPTH if DEPTH > 0 else 1
    tiles = ()
    for step in tl.static_range(STEPS):
        tiles = tiles + (_columns(starts, step, K, BLOCK_K),)
    if PDL:
        cuda.gdc_wait()
    for row in tl.static_range(ROWS):
        total = tl.zeros((BLOCK_N, BLOCK_K // PART), tl.float32)
        for step in tl.static_range(STEPS):
            factor = _columns(x + row * x_stride, step, K, BLOCK_K)
            products = widened(tiles[step], tl.float32) * factor.to(tl.float32)
            if DEPTH > 0:
                products = tl.sum(tl.reshape(products, (BLOCK_N, BLOCK_K // PART, PART)), 2)
                products *= _factors(scale, n, columns, step, K, BLOCK_K, HEIGHT, DEPTH)
            total += products
        result = tl.sum(total, 1)
        if SCALED and DEPTH == 0:
            result *= tl.load(scale + n, n < columns, 0.0)
        if HAS_BIAS:
            result += tl.load(bias + n, n < columns, 0.0)
        tl.store(out + row * columns + n, result.to(out.dtype.element_ty), n < columns)


@triton.jit
def _columns(starts, step: tl.constexpr, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """A step's columns of rows that begin at `starts`; 0 beyond K."""
    k = step * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
    if (step + 1) * BLOCK_K <= K:
        return tl.load(starts + k)
    return tl.load(starts + k, k < K, 0.0)


@triton.jit
def _factors(
    scale,
    n,
    columns,
    step,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HEIGHT: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The scales [rows n, blocks] of a step's columns; 0 beyond K."""
    GROUPS: tl.constexpr = (K + DEPTH - 1) // DEPTH
    group = step * (BLOCK_K // DEPTH) + tl.arange(0, BLOCK_K // DEPTH)
    starts = scale + tl.minimum(n, columns - 1) // HEIGHT * GROUPS
    return tl.load(starts[:, None] + group[None, :], group[None, :] < GROUPS, 0.0)


@dataclass(frozen=True, slots=True)
class Cut:
    """BLOCK_N rows of W to a program, in loads of BLOCK_K columns."""

    block_n: int
    block_k: int
    num_warps: int


def vector(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cut: Cut,
    scales: Scales = NO_SCALES,
    *,
    overlapped: bool = False,
) -> Tensor:
    """x [T, K] Wᵀ (+ bias) for a T of 1 to 8, W [N, K] contiguous, with scales of its own.

    overlapped: start while the kernel before still runs (from sm_90 on).
    """
    if scales.depth and (cut.block_k % scales.depth or scales.depth & (scales.depth - 1)):
        raise ShapeError(f"{cut} does not consist of blocks of {scales.depth} columns")
    (rows, width), columns = x.shape, weight.shape[0]
    out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    vector_kernel[(triton.cdiv(columns, cut.block_n),)](
        x,
        weight,
        scales.weight,
        bias,
        out,
        columns,
        x.stride(0),
        K=width,
        ROWS=rows,
        BLOCK_N=cut.block_n,
        BLOCK_K=cut.block_k,
        HAS_BIAS=bias is not None,
        SCALED=scales.weight is not None,
        HEIGHT=scales.height,
        DEPTH=scales.depth,
        PDL=overlapped,
        num_warps=cut.num_warps,
        launch_pdl=overlapped,
    )
    return out


def _specimen(
    width: int, rows: int, cut: Cut, kind: str = "bf16", block: tuple[int, int] = (1, 0)
) -> Specimen:
    signature = {
        "x": "*bf16",
        "weight": f"*{kind}",
        "scale": "*fp32",
        "bias": "*fp32",
        "out": "*bf16",
        "columns": "i32",
        "x_stride": "i32",
    }
    constants: dict[str, object] = {
        "K": width,
        "ROWS": rows,
        "BLOCK_N": cut.block_n,
        "BLOCK_K": cut.block_k,
        "HAS_BIAS": True,
        "SCALED": kind != "bf16",
        "HEIGHT": block[0],
        "DEPTH": block[1],
        "PDL": False,
    }
    aligned = ("x", "weight", "scale", "bias", "out", "columns", "x_stride")
    capabilities = {"bf16": (80, 90), "fp8e4nv": (89, 90), "u8": (80,)}[kind]
    return Specimen(
        vector_kernel,
        signature,
        constants,
        cut.num_warps,
        aligned=aligned,
        capabilities=capabilities,
    )


SPECIMENS = (
    *(
        _specimen(width, rows, cut)
        for width in (4096, 14336)
        for rows, cut in ((1, Cut(1, 512, 4)), (2, Cut(1, 2048, 8)))
    ),
    *(
        _specimen(width, 1, cut, kind)
        for width, cut in ((4096, Cut(1, 512, 2)), (4096, Cut(2, 512, 1)), (14336, Cut(1, 512, 4)))
        for kind in ("fp8e4nv", "u8")
    ),
    *(
        _specimen(width, 1, Cut(1, 2048, 4), kind, (128, 128))
        for width in (4096, 14336)
        for kind in ("fp8e4nv", "u8")
    ),
)
