# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""The gated activations of an MLP. Floor: two rows in, one out, over the copy bandwidth."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import Activation, Gated

_BLOCK = 1024


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
    wide = tl.load(gate + row * gate_stride + column, there, 0.0).to(tl.float32)
    other = tl.load(up + row * up_stride + column, there, 0.0).to(tl.float32)
    result = activate(wide, ACTIVATION) * other
    tl.store(out + row * width + column, result.to(out.dtype.element_ty), there)


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


def _specimen(activation: Activation) -> Specimen:
    types = {
        "gate": "*bf16",
        "up": "*bf16",
        "out": "*bf16",
        "width": "i32",
        "gate_stride": "i32",
        "up_stride": "i32",
    }
    constants: dict[str, object] = {"ACTIVATION": activation, "BLOCK": _BLOCK, "PDL": False}
    aligned = ("gate", "up", "out", "width", "gate_stride", "up_stride")
    return Specimen(gated_kernel, types, constants, aligned=aligned)


SPECIMENS = (_specimen("silu"), _specimen("gelu_tanh"))
