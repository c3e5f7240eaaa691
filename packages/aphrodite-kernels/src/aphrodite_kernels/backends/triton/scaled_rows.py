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
from aphrodite_kernels.rounded import Rounded

_LARGEST = tl.constexpr(torch.finfo(torch.float8_e4m3fn).max)
_SMALLEST = tl.constexpr(1e-30)
"""A part whose numbers are all smaller is scaled as if this were its largest."""


@triton.jit
def store_rounded(
    value,
    codes,
    scale,
    row,
    rows,
    width,
    ROWS: tl.constexpr,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Round value [ROWS, PARTS * DEPTH], rows `row` [ROWS, 1], zero from column `width` on.

    The largest number of each DEPTH columns becomes the largest there is. Nothing is clipped: a
    quotient that rounding puts above it is nearer to it than to no number. NaN stays NaN, and
    infinity becomes it.
    """
    part, column = tl.arange(0, PARTS)[None, :], tl.arange(0, PARTS * DEPTH)[None, :]
    numbers = tl.reshape(value.to(tl.float32), (ROWS, PARTS, DEPTH))
    largest = tl.maximum(tl.max(tl.abs(numbers), 2), _SMALLEST)
    factor = tl.full((ROWS, PARTS), _LARGEST, tl.float32) / largest
    steps = tl.reshape(numbers * factor[:, :, None], (ROWS, PARTS * DEPTH))
    row, parts = row.to(tl.int64), tl.cdiv(width, DEPTH)
    there = (row < rows) & (column < width)
    tl.store(codes + row * width + column, steps.to(codes.dtype.element_ty), there)
    tl.store(scale + row * parts + part, largest / _LARGEST, (row < rows) & (part < parts))


@triton.jit(do_not_specialize=["rows"])
def round_rows_kernel(
    x,
    codes,
    scale,
    rows,
    width,
    x_stride,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0) + tl.zeros((1, 1), tl.int32)
    column = tl.arange(0, PARTS * DEPTH)[None, :]
    value = tl.load(x + row.to(tl.int64) * x_stride + column, column < width, 0.0)
    store_rounded(value, codes, scale, row, rows, width, 1, PARTS, DEPTH)


def round_rows(x: Tensor, depth: int, *, overlapped: bool) -> Rounded:
    """x [T, K], rounded.

    Args:
        x: activations.
        depth: columns that share a scale, a power of two; 0: all of them.
        overlapped: start while the kernel before still runs (from sm_90 on).
    """
    rows, width = x.shape
    block, out = triton.next_power_of_2(width), empty_rounded(x, depth)
    round_rows_kernel[(rows,)](
        x,
        out.codes,
        out.scale,
        rows,
        width,
        x.stride(0),
        **parts_of(width, depth),
        PDL=overlapped,
        num_warps=_warps(block),
        launch_pdl=overlapped,
    )
    return out


def empty_rounded(x: Tensor, depth: int) -> Rounded:
    """Room for x [T, K], rounded in parts of `depth` columns; 0: in whole rows."""
    rows, width = x.shape
    size = min(depth, width) or width
    codes = torch.empty((rows, width), dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty((rows, -(-width // size)), dtype=torch.float32, device=x.device)
    return Rounded(codes, scale, size, x.dtype)


def parts_of(width: int, depth: int) -> dict[str, int]:
    """Into what a kernel that rounds rows of `width` numbers cuts the power of two they lie in."""
    block = int(triton.next_power_of_2(width))
    size = min(depth, block) or block
    return {"PARTS": block // size, "DEPTH": size}


def _warps(block: int) -> int:
    """Sixteen numbers to a thread, at most 16 warps."""
    return min(16, max(1, block // 512))


def _specimen(width: int, depth: int) -> Specimen:
    signature = {
        "x": "*bf16",
        "codes": "*fp8e4nv",
        "scale": "*fp32",
        **dict.fromkeys(("rows", "width", "x_stride"), "i32"),
    }
    return Specimen(
        round_rows_kernel,
        signature,
        {**parts_of(width, depth), "PDL": False},
        _warps(triton.next_power_of_2(width)),
        aligned=("x", "codes", "scale", "width", "x_stride"),
        capabilities=(89, 90),
    )


SPECIMENS = tuple(_specimen(width, depth) for width in (4096, 14336) for depth in (0, 128))
