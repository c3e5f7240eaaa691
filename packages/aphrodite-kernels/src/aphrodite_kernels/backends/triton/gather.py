# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Rows of a matrix, and rows of an embedding. Floor: the rows, in and out."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_kernels.protocols import Embed, Select

_BLOCK = 2048


@triton.jit(do_not_specialize=["index"])
def gather_kernel(
    x,
    index,
    out,
    width,
    x_stride,
    scale,
    SCALED: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK numbers of row index[r]; SCALED: times scale, in float32, to the dtype of out."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = column < width
    source = tl.load(index + row).to(tl.int64)
    value = tl.load(x + source * x_stride + column, there)
    if SCALED:
        value = (value.to(tl.float32) * scale).to(out.dtype.element_ty)
    tl.store(out + row * width + column, value, there)


def select_on(*, overlapped: bool) -> Select:
    """Implements protocols.Select."""

    def select(x: Tensor, index: Tensor) -> Tensor:
        out = torch.empty((len(index), x.shape[1]), dtype=x.dtype, device=x.device)
        _launch(x, index, out, 1.0, scaled=False, overlapped=overlapped)
        return out

    return select


def embed_dense_on(dtype: torch.dtype, *, overlapped: bool) -> Embed:
    """Implements protocols.Embed for dense weights."""

    def embed(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Dense), "bound to another layout"
        shape = (len(tokens), weight.in_features)
        out = torch.empty(shape, dtype=dtype, device=tokens.device)
        _launch(weight.weight, tokens, out, scale, scaled=True, overlapped=overlapped)
        return out

    return embed


def _launch(
    x: Tensor, index: Tensor, out: Tensor, scale: float, *, scaled: bool, overlapped: bool
) -> None:
    width = x.shape[1]
    block = min(_BLOCK, triton.next_power_of_2(width))
    gather_kernel[(len(index), triton.cdiv(width, block))](
        x,
        index,
        out,
        width,
        x.stride(0),
        scale,
        SCALED=scaled,
        BLOCK=block,
        PDL=overlapped,
        num_warps=4,
        launch_pdl=overlapped,
    )


def _specimen(kind: str, index: str, *, scaled: bool) -> Specimen:
    types = {
        "x": kind,
        "index": index,
        "out": kind,
        "width": "i32",
        "x_stride": "i32",
        "scale": "fp32",
    }
    constants: dict[str, object] = {"SCALED": scaled, "BLOCK": _BLOCK, "PDL": False}
    aligned = ("x", "out", "width", "x_stride")
    return Specimen(gather_kernel, types, constants, aligned=aligned)


SPECIMENS = (
    _specimen("*bf16", "*i32", scaled=True),
    _specimen("*bf16", "*i64", scaled=False),
    _specimen("*i32", "*i64", scaled=False),
)
