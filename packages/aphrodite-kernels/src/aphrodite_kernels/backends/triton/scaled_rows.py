# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Activations in eight-bit floats, each row, or each part of a row, with a scale of its own.

Floor: rows in, half of them out, over the copy bandwidth.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST = 1e-30
"""A part whose numbers are all smaller is scaled as if this were its largest."""


@triton.jit
def round_rows_kernel(
    x,
    out,
    scale,
    width,
    parts,
    x_stride,
    LARGEST: tl.constexpr,
    SMALLEST: tl.constexpr,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row: the largest number of each DEPTH columns becomes the largest there is.

    Nothing is clipped: a quotient that rounding puts above LARGEST is nearer to it than to no
    number. NaN stays NaN, and infinity becomes it.
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    column = part[:, None] * DEPTH + tl.arange(0, DEPTH)[None, :]
    value = tl.load(x + row * x_stride + column, column < width, 0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(value), 1), SMALLEST)
    steps = value * (LARGEST / largest)[:, None]
    tl.store(out + row * width + column, steps.to(out.dtype.element_ty), column < width)
    tl.store(scale + row * parts + part, largest / LARGEST, part < parts)


def round_rows(x: Tensor, depth: int, *, overlapped: bool) -> tuple[Tensor, Tensor]:
    """x [T, K] -> float8_e4m3fn [T, K], and float32 scales [T, ceil(K / depth)].

    Args:
        x: activations.
        depth: columns that share a scale, a power of two; 0: all of them.
        overlapped: start while the kernel before still runs (from sm_90 on).
    """
    rows, width = x.shape
    block = triton.next_power_of_2(width)
    size = min(depth, block) or block
    parts = -(-width // size)
    out = torch.empty((rows, width), dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty((rows, parts), dtype=torch.float32, device=x.device)
    round_rows_kernel[(rows,)](
        x,
        out,
        scale,
        width,
        parts,
        x.stride(0),
        LARGEST=_LARGEST,
        SMALLEST=_SMALLEST,
        PARTS=block // size,
        DEPTH=size,
        PDL=overlapped,
        num_warps=_warps(block),
        launch_pdl=overlapped,
    )
    return out, scale


def _warps(block: int) -> int:
    """Sixteen numbers to a thread, at most 16 warps."""
    return min(16, max(1, block // 512))


def _specimen(width: int, depth: int) -> Specimen:
    signature = {
        "x": "*bf16",
        "out": "*fp8e4nv",
        "scale": "*fp32",
        **dict.fromkeys(("width", "parts", "x_stride"), "i32"),
    }
    block = triton.next_power_of_2(width)
    size = depth or block
    constants: dict[str, object] = {
        "LARGEST": _LARGEST,
        "SMALLEST": _SMALLEST,
        "PARTS": block // size,
        "DEPTH": size,
        "PDL": False,
    }
    return Specimen(
        round_rows_kernel,
        signature,
        constants,
        _warps(block),
        aligned=("x", "out", "scale", "width", "x_stride"),
        capabilities=(89, 90),
    )


SPECIMENS = tuple(_specimen(width, depth) for width in (4096, 14336) for depth in (0, 128))
