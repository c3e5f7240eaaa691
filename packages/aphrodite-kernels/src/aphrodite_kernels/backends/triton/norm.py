# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Root-mean-square norms: a program holds one row, or a few short ones, whole.

Floor: rows in, rows out, over the copy bandwidth; for one token the latency of a launch, which a
kernel that starts while the one before still runs (`overlapped`) hides.
"""

from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.scaled_rows import empty_rounded, parts_of, store_rounded
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError
from aphrodite_kernels.protocols import AddRMSNorm, RMSNorm
from aphrodite_kernels.rounded import Rounded

_WIDEST = 32768
"""Numbers that a program holds."""
_AT_ONCE = 1024
"""Numbers of short rows that a program takes."""
_WHOLE: Mapping[str, int] = {"PARTS": 0, "DEPTH": 0}
"""Nothing is rounded to eight bits."""


@triton.jit(do_not_specialize=["rows"])
def rms_norm_kernel(
    x,
    residual,
    weight,
    out,
    out_scale,
    total,
    rows,
    heads,
    x_stride,
    x_head_stride,
    residual_stride,
    eps,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ADD: tl.constexpr,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """ROWS rows of x [rows / heads, heads, WIDTH]; ADD: of x + residual, which goes to total.

    PARTS: of a row, that are rounded to eight bits; 0: none is.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    there = (row < rows) & (column < WIDTH)
    factor = tl.load(weight + column, column < WIDTH, 0.0)
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    token, head = row // heads, row % heads
    place = token.to(tl.int64) * x_stride + head * x_head_stride + column
    value = tl.load(x + place, there, 0.0)
    written = row.to(tl.int64) * WIDTH + column
    if ADD:
        other = tl.load(residual + row.to(tl.int64) * residual_stride + column, there, 0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(total.dtype.element_ty)
        tl.store(total + written, value, there)
    wide = value.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / WIDTH + eps)
    normal = (wide * scale[:, None] * factor).to(x.dtype.element_ty)
    if PARTS:
        store_rounded(normal, out, out_scale, row, rows, WIDTH, ROWS, PARTS, DEPTH)
    else:
        tl.store(out + written, normal, there)


def rms_norm_on(*, overlapped: bool) -> RMSNorm:
    """Implements protocols.RMSNorm."""

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        _launch(x, None, weight, (out, None, None), eps, overlapped=overlapped)
        return out

    return rms_norm


def add_rms_norm_on(*, overlapped: bool) -> AddRMSNorm:
    """Implements protocols.AddRMSNorm."""

    def add_rms_norm(
        x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        out, total = torch.empty((2, *x.shape), dtype=x.dtype, device=x.device).unbind()
        _launch(x, residual, weight, (out, None, total), eps, overlapped=overlapped)
        return out, total

    return add_rms_norm


def add_rms_norm_rounded(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, depth: int, *, overlapped: bool
) -> tuple[Rounded, Tensor]:
    """protocols.AddRMSNorm, and its norm through `round_rows`, in one kernel."""
    out, total = empty_rounded(x, depth), torch.empty(x.shape, dtype=x.dtype, device=x.device)
    outs, parts = (out.codes, out.scale, total), parts_of(x.shape[1], depth)
    _launch(x, residual, weight, outs, eps, parts, overlapped=overlapped)
    return out, total


def _launch(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    outs: tuple[Tensor, Tensor | None, Tensor | None],
    eps: float,
    parts: Mapping[str, int] = _WHOLE,
    *,
    overlapped: bool,
) -> None:
    width = x.shape[-1]
    if width > _WIDEST:
        raise ShapeError(f"a norm of {width} numbers is wider than the kernel's {_WIDEST}")
    heads = x.shape[1] if x.ndim == 3 else 1
    rows = x.shape[0] * heads
    block = triton.next_power_of_2(width)
    at_once = max(1, _AT_ONCE // block)
    rms_norm_kernel[(triton.cdiv(rows, at_once),)](
        x,
        residual,
        weight,
        *outs,
        rows,
        heads,
        x.stride(0),
        x.stride(1) if x.ndim == 3 else 0,
        0 if residual is None else residual.stride(0),
        eps,
        WIDTH=width,
        ROWS=at_once,
        BLOCK=block,
        ADD=residual is not None,
        **parts,
        PDL=overlapped,
        num_warps=_warps(block * at_once),
        launch_pdl=overlapped,
    )


def _warps(numbers: int) -> int:
    """Eight numbers, 16 bytes, to a thread."""
    return min(16, max(1, numbers // 256))


def _specimen(width: int, rows: int, parts: Mapping[str, int] = _WHOLE, *, add: bool) -> Specimen:
    types = {
        "x": "*bf16",
        "residual": "*bf16",
        "weight": "*fp32",
        "out": "*fp8e4nv" if parts["PARTS"] else "*bf16",
        "out_scale": "*fp32",
        "total": "*bf16",
        "rows": "i32",
        "heads": "i32",
        "x_stride": "i32",
        "x_head_stride": "i32",
        "residual_stride": "i32",
        "eps": "fp32",
    }
    block = triton.next_power_of_2(width)
    constants: dict[str, object] = {
        "WIDTH": width, "ROWS": rows, "BLOCK": block, "ADD": add, **parts, "PDL": False,
    }  # fmt: skip
    aligned = (
        "x",
        "residual",
        "weight",
        "out",
        "out_scale",
        "total",
        "x_stride",
        "residual_stride",
    )
    return Specimen(
        rms_norm_kernel,
        types,
        constants,
        _warps(block * rows),
        aligned=aligned,
        capabilities=(89, 90) if parts["PARTS"] else (80, 90),
    )


SPECIMENS = (
    _specimen(4096, 1, add=True),
    _specimen(16384, 1, add=True),
    _specimen(128, 8, add=False),
    _specimen(4096, 1, parts_of(4096, 0), add=True),
    _specimen(4096, 1, parts_of(4096, 128), add=True),
)
