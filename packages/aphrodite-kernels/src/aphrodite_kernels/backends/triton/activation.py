# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""The gated activations of an MLP. Floor: two rows in, one out, over the copy bandwidth."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.scaled_rows import empty_rounded, parts_of, store_rounded
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import Activation, Gated
from aphrodite_kernels.rounded import Rounded

_BLOCK = 1024
WIDEST_ROUNDED = 32768
"""Numbers of a row that `gated_rounded` holds."""


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """x / (1 + exp(-z)), float32: the tanh of gelu is a logistic function of twice its argument."""
    z = x
    if ACTIVATION == "gelu_tanh":
        z = 1.5957691216057308 * (x + 0.044715 * x * x * x)
    small = tl.exp(-tl.abs(z))  # never overflows
    return x * tl.where(z < 0, small, 1.0) / (1 + small)


@triton.jit
def gated_kernel(
    gate,
    up,
    out,
    width,
    gate_stride,
    up_stride,
    ACTIVATION: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK numbers of one row of activation(gate) * up."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    result = _gated(gate + row * gate_stride, up + row * up_stride, column, there, ACTIVATION)
    tl.store(out + row * width + column, result, there)


@triton.jit
def _gated(gate, up, column, there, ACTIVATION: tl.constexpr):
    """activation(gate) * up in their dtype, at some columns."""
    wide = tl.load(gate + column, there, 0.0).to(tl.float32)
    other = tl.load(up + column, there, 0.0).to(tl.float32)
    return (activate(wide, ACTIVATION) * other).to(gate.dtype.element_ty)


@triton.jit(do_not_specialize=["rows"])
def gated_rounded_kernel(
    gate,
    up,
    codes,
    scale,
    rows,
    width,
    gate_stride,
    up_stride,
    ACTIVATION: tl.constexpr,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row of activation(gate) * up, rounded to eight bits."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0) + tl.zeros((1, 1), tl.int32)
    column = tl.arange(0, PARTS * DEPTH)[None, :]
    gates, ups = gate + row.to(tl.int64) * gate_stride, up + row.to(tl.int64) * up_stride
    result = _gated(gates, ups, column, column < width, ACTIVATION)
    store_rounded(result, codes, scale, row, rows, width, 1, PARTS, DEPTH)


def gated_on(*, overlapped: bool) -> Gated:
    """Implements protocols.Gated."""

    def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        rows, width = gate.shape
        out = torch.empty((rows, width), dtype=gate.dtype, device=gate.device)
        gated_kernel[(triton.cdiv(width, _BLOCK), rows)](
            gate,
            up,
            out,
            width,
            gate.stride(0),
            up.stride(0),
            ACTIVATION=activation,
            BLOCK=_BLOCK,
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )
        return out

    return gated


def gated_rounded(
    gate: Tensor, up: Tensor, activation: Activation, depth: int, *, overlapped: bool
) -> Rounded:
    """protocols.Gated through `round_rows`, of at most WIDEST_ROUNDED columns."""
    rows, width = gate.shape
    out, parts = empty_rounded(gate, depth), parts_of(width, depth)
    gated_rounded_kernel[(rows,)](
        gate,
        up,
        out.codes,
        out.scale,
        rows,
        width,
        gate.stride(0),
        up.stride(0),
        ACTIVATION=activation,
        **parts,
        PDL=overlapped,
        num_warps=_warps(width),
        launch_pdl=overlapped,
    )
    return out


def _warps(width: int) -> int:
    """Of a whole row: 32 numbers to a thread."""
    return max(1, int(triton.next_power_of_2(width)) // 1024)


_TYPES = {
    **dict.fromkeys(("gate", "up"), "*bf16"),
    **dict.fromkeys(("width", "gate_stride", "up_stride"), "i32"),
}


def _specimen(activation: Activation) -> Specimen:
    types = {**_TYPES, "out": "*bf16"}
    constants: dict[str, object] = {"ACTIVATION": activation, "BLOCK": _BLOCK, "PDL": False}
    return Specimen(gated_kernel, types, constants, aligned=tuple(types))


def _rounded_specimen(width: int, depth: int) -> Specimen:
    types = {**_TYPES, "rows": "i32", "codes": "*fp8e4nv", "scale": "*fp32"}
    return Specimen(
        gated_rounded_kernel,
        types,
        {"ACTIVATION": "silu", **parts_of(width, depth), "PDL": False},
        _warps(width),
        aligned=tuple(name for name in types if name != "rows"),
        capabilities=(89, 90),
    )


SPECIMENS = (
    _specimen("silu"),
    _specimen("gelu_tanh"),
    _rounded_specimen(14336, 0),
    _rounded_specimen(14336, 128),
    _rounded_specimen(WIDEST_ROUNDED, 0),
)
