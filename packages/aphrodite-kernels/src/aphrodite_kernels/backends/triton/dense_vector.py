# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false
"""Products of very few rows with a weight: every program holds its rows of W whole.

All of a program's loads of W are under way before it needs the first. Floor: the bytes of W over
the read bandwidth; 8 columns to a thread and load, so 16 bytes.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen

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
    PDL: tl.constexpr,
):
    """BLOCK_N columns of out for each of ROWS rows.

    PDL: launched while the kernel before still runs; W is fetched, and only then that kernel
    waited for.
    """
    if PDL:
        cuda.gdc_launch_dependents()
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    starts = weight + tl.minimum(n, columns - 1).to(tl.int64)[:, None] * K
    STEPS: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    tiles = ()
    for step in tl.static_range(STEPS):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
        if (step + 1) * BLOCK_K <= K:
            tiles = tiles + (tl.load(starts + k),)
        else:
            tiles = tiles + (tl.load(starts + k, k < K, 0.0),)
    if PDL:
        cuda.gdc_wait()
    for row in tl.static_range(ROWS):
        total = tl.zeros((BLOCK_N, BLOCK_K), tl.float32)
        for step in tl.static_range(STEPS):
            k = step * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
            if (step + 1) * BLOCK_K <= K:
                factor = tl.load(x + row * x_stride + k)
            else:
                factor = tl.load(x + row * x_stride + k, k < K, 0.0)
            total += tiles[step].to(tl.float32) * factor.to(tl.float32)
        result = tl.sum(total, 1)
        if SCALED:
            result *= tl.load(scale + n, n < columns, 0.0)
        if HAS_BIAS:
            result += tl.load(bias + n, n < columns, 0.0)
        tl.store(out + row * columns + n, result.to(out.dtype.element_ty), n < columns)


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
    scale: Tensor | None = None,
    *,
    overlapped: bool = False,
) -> Tensor:
    """x [T, K] Wᵀ (+ bias) for a T of 1 to 8, W [N, K] contiguous, times scale [N] if given.

    overlapped: start while the kernel before still runs (from sm_90 on).
    """
    (rows, width), columns = x.shape, weight.shape[0]
    out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    vector_kernel[(triton.cdiv(columns, cut.block_n),)](
        x,
        weight,
        scale,
        bias,
        out,
        columns,
        x.stride(0),
        K=width,
        ROWS=rows,
        BLOCK_N=cut.block_n,
        BLOCK_K=cut.block_k,
        HAS_BIAS=bias is not None,
        SCALED=scale is not None,
        PDL=overlapped,
        num_warps=cut.num_warps,
        launch_pdl=overlapped,
    )
    return out


def _specimen(width: int, rows: int, cut: Cut, kind: str = "bf16") -> Specimen:
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
        "PDL": False,
    }
    aligned = ("x", "weight", "scale", "bias", "out", "columns", "x_stride")
    capabilities = (80, 90) if kind == "bf16" else (90,)
    return Specimen(
        vector_kernel,
        signature,
        constants,
        cut.num_warps,
        aligned=aligned,
        capabilities=capabilities,
    )


SPECIMENS = (
    *(_specimen(width, rows, Cut(1, 1024, 4)) for width in (4096, 14336) for rows in (1, 4)),
    *(_specimen(width, 1, Cut(1, 2048, 4), "fp8e4nv") for width in (4096, 14336)),
)
