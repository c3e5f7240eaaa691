# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
"""Look-up of single rows of a fragmented weight."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.decode import (
    elements_of,
    header_of,
    made_in,
    record_of,
    words_of,
)
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, UNIT
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.protocols import Embed

_UNITS = 8
"""Of 256 columns, to a program: four elements of a run of columns to a lane of its one warp."""


@triton.jit(do_not_specialize=["tokens", "count"])
def rows_kernel(
    tokens,
    records,
    out,
    count,
    factor,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """BLOCK units of the rows of TOKENS tokens of `count`, times factor."""
    UNITS: tl.constexpr = (K + 255) // 256
    DTYPE: tl.constexpr = made_in(out.dtype.element_ty, EMULATE)
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    index = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS))[:, None, None, None]
    there = index < count
    row = tl.load(tokens + index, there, 0)
    unit = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :, None, None]
    record = (row // 16).to(tl.int64) * UNITS + tl.minimum(unit, UNITS - 1)
    record = records + record * ENCODING.record
    t = tl.arange(0, 4)[None, None, :, None]
    pair = tl.arange(0, 4)[None, None, None, :]
    codes = record + (row % 8 * 4 + t) * 8 + row % 16 // 8 * 2 + pair // 2 * 4 + pair % 2
    header = header_of(record, row % 16, ENCODING)
    column = unit * 256 + t * 4 + pair
    target = out + index.to(tl.int64) * K + column
    record = record_of(codes, header, ENCODING)
    for run in tl.static_range(16):
        words = words_of(record, run, ENCODING)
        code, scale, shift = elements_of(words, run, ENCODING, DTYPE, EMULATE)
        element = (code * scale + shift) * factor
        kept = there & (column + run * 16 < K)
        tl.store(target + run * 16, element.to(out.dtype.element_ty), kept)


def embed_fragments_on(dtype: torch.dtype, *, overlapped: bool) -> Embed:
    """The look-up that answers in `dtype`."""

    def embed(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        if not isinstance(weight, Fragments):
            raise LayoutError(f"this look-up reads Fragments, not {type(weight).__name__}")
        out = torch.empty(len(tokens), weight.inputs, dtype=dtype, device=tokens.device)
        if not len(tokens):
            return out
        emulate = interpreted()
        together = 32 if emulate else 1  # the interpreter pays for programs alone
        units = triton.cdiv(weight.inputs, UNIT)
        grid = (triton.cdiv(len(tokens), together), triton.cdiv(units, _UNITS))
        rows_kernel[grid](
            tokens,
            weight.records,
            out,
            len(tokens),
            scale,
            K=weight.inputs,
            ENCODING=weight.encoding,
            TOKENS=together,
            BLOCK=_UNITS,
            PDL=overlapped,
            EMULATE=emulate,
            num_warps=1,
            launch_pdl=overlapped,
        )
        return weight.in_order(out)

    return embed


SPECIMENS = tuple(
    Specimen(
        rows_kernel,
        {"tokens": "*i32", "records": "*i16", "out": "*bf16", "count": "i32", "factor": "fp32"},
        {
            "K": 4096,
            "ENCODING": encoding,
            "TOKENS": 1,
            "BLOCK": _UNITS,
            "PDL": False,
            "EMULATE": False,
        },
        num_warps=1,
        aligned=("records", "out"),
    )
    for encoding in ENCODINGS.values()
)
