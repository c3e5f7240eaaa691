# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""The Hadamard transforms before and after a product with a trellis, 128 channels each, in float32.

Inputs become an eighth of what they are, outputs eight times as large, so that inputs in half
precision have room for 500 000: powers of two cost nothing.

Floor: what is read and written over the bandwidth of the cache they lie in.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.specimen import Specimen

_TOGETHER = 8
"""Rows of a program: those that lie together in the order of lanes."""
WARPS = 4
"""Of a program."""
_SMALLER = tl.constexpr(0.125)
_ROOT = tl.constexpr(128**-0.5)


@triton.jit
def turned(x, ROWS: tl.constexpr):
    """Rows of 128 float32, transformed, without the factor that keeps their size.

    Each stage takes neighbours and writes sums before differences: after seven all are in place.
    """
    for _ in tl.static_range(7):
        even, odd = tl.split(tl.reshape(x, (ROWS, 64, 2)))
        x = tl.reshape(tl.permute(tl.join(even + odd, even - odd), (0, 2, 1)), (ROWS, 128))
    return x


@triton.jit(do_not_specialize=["rows", "groups"])
def turn_inputs_kernel(
    x,
    suh,
    out,
    rows,
    x_stride,
    groups,
    K: tl.constexpr,
    WIDTH: tl.constexpr,
    UNITS: tl.constexpr,
    TOGETHER: tl.constexpr,
    ARRANGED: tl.constexpr,
    PDL: tl.constexpr,
):
    """128 columns of TOGETHER groups of eight rows, by one suh; what is beyond x is zero.

    ARRANGED: per group and UNITS of 128 columns in the order of lanes: 4 pairs of runs of 16
    columns, 32 lanes, both runs; lane 4 g + t has of row g columns 2 t, 2 t + 1 and those 8 beyond.
    If not, plain rows of K.
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    ROWS: tl.constexpr = 8 * TOGETHER
    unit = tl.program_id(0)
    index = tl.arange(0, ROWS)[:, None]
    row = tl.program_id(1) * ROWS + index
    place = tl.arange(0, 128)[None, :]
    column = unit * 128 + place
    there = (row < rows) & (column < WIDTH)
    part = tl.load(x + row.to(tl.int64) * x_stride + column, there, 0.0).to(tl.float32)
    which = tl.program_id(2)
    part *= tl.load(suh + which * K + column, column < K, 0.0).to(tl.float32)
    part = turned(part, ROWS) * (_SMALLER * _ROOT)
    part = part.to(out.dtype.element_ty)
    if ARRANGED:
        group = which * groups + row // 8
        lane = row % 8 * 4 + place % 8 // 2
        element = place // 16 % 2 * 4 + place % 16 // 8 * 2 + place % 2
        target = (
            group.to(tl.int64) * (UNITS * 1024)
            + unit * 1024
            + place // 32 * 256
            + lane * 8
            + element
        )
        tl.store(out + target, part, row < groups * 8)
    else:
        place = (which * rows + row).to(tl.int64) * K + column
        tl.store(out + place, part, row < rows)


def turn_inputs(
    x: Tensor,
    suh: Tensor,
    dtype: torch.dtype,
    *,
    groups: int = 0,
    units: int = 0,
    overlapped: bool,
) -> Tensor:
    """An eighth of x [T, K or less] times each suh [S, K], transformed, [S, T, K].

    groups, units: [S, groups, units, 1024] in the order of lanes, so many eights of rows by so many
    128 columns.
    """
    rows, (scales, full) = len(x), suh.shape
    arranged = groups > 0
    shape = (scales, groups, units, 1024) if arranged else (scales, rows, full)
    out = torch.empty(shape, dtype=dtype, device=x.device)
    eights = groups or triton.cdiv(rows, 8)
    together = 8 if interpreted() else 1  # the interpreter pays for programs alone
    grid = (units or full // 128, triton.cdiv(eights, together), scales)
    turn_inputs_kernel[grid](
        x,
        suh,
        out,
        rows,
        x.stride(0),
        eights,
        K=full,
        WIDTH=x.shape[1],
        UNITS=units,
        TOGETHER=together,
        ARRANGED=arranged,
        PDL=overlapped,
        num_warps=WARPS,
        launch_pdl=overlapped,
    )
    return out


@triton.jit(do_not_specialize=["rows"])
def turn_outputs_kernel(
    x,
    svh,
    bias,
    out,
    rows,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
):
    """128 columns of ROWS rows."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(0) * 128 + tl.arange(0, 128)[None, :]
    place = row.to(tl.int64) * N + column
    part = turned(tl.load(x + place, row < rows, 0.0).to(tl.float32), ROWS)
    part *= tl.load(svh + column).to(tl.float32) * (_ROOT / _SMALLER)
    if HAS_BIAS:
        part += tl.load(bias + column)
    tl.store(out + place, part.to(out.dtype.element_ty), row < rows)


def turn_outputs(
    x: Tensor, svh: Tensor, bias: Tensor | None, dtype: torch.dtype, *, overlapped: bool
) -> Tensor:
    """Eight times x [T, N], transformed, times svh (+ bias)."""
    rows, columns = x.shape
    out = torch.empty(rows, columns, dtype=dtype, device=x.device)
    together = 64 if interpreted() else rows_for(rows)
    turn_outputs_kernel[(columns // 128, triton.cdiv(rows, together))](
        x,
        svh,
        bias,
        out,
        rows,
        N=columns,
        ROWS=together,
        HAS_BIAS=bias is not None,
        PDL=overlapped,
        num_warps=WARPS,
        launch_pdl=overlapped,
    )
    return out


def rows_for(rows: int) -> int:
    """Of a program."""
    return 1 if rows == 1 else _TOGETHER


_INPUTS = {"x": "*bf16", "suh": "*fp16"} | dict.fromkeys(("rows", "x_stride", "groups"), "i32")
_OUTPUTS = {"svh": "*fp16", "bias": "*fp32", "out": "*bf16", "rows": "i32"}
SPECIMENS = (
    *(
        Specimen(
            turn_inputs_kernel,
            {**_INPUTS, "out": kind},
            {"K": 4096, "WIDTH": 4096, "UNITS": units, "TOGETHER": together, "ARRANGED": units > 0}
            | {"PDL": False},
            aligned=("x", "suh", "out", "x_stride"),
        )
        for kind, units, together in (("*fp16", 32, 1), ("*bf16", 0, 1))
    ),
    *(
        Specimen(
            turn_outputs_kernel,
            {**_OUTPUTS, "x": kind},
            {"N": 4096, "ROWS": rows, "HAS_BIAS": False, "PDL": False},
            aligned=("x", "svh", "bias", "out"),
        )
        for kind, rows in (("*fp32", 1), ("*fp32", 8), ("*bf16", 8))
    ),
)
