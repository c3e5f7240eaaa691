# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
"""Rows of a fragmented weight as a dense matrix, for the vendor's product.

Floor: the bytes of the records read and of the matrix written over the bandwidth of a copy.
"""

import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.decode import (
    elements_of,
    header_of,
    made_in,
    record_of,
    words_of,
)
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, GROUPED, TILE, UNIT, Encoding
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import GgmlType

_WARPS = 4
"""Records of a program, one to a warp."""


@triton.jit(do_not_specialize=["first_tile", "rows"])
def dequantize_kernel(
    records,
    out,
    first_tile,
    rows,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    RECORDS: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """RECORDS records, from tile `first_tile` on, into out [rows, K]."""
    UNITS: tl.constexpr = (K + 255) // 256
    DTYPE: tl.constexpr = made_in(out.dtype.element_ty, EMULATE)
    index = tl.program_id(0) * RECORDS + tl.arange(0, RECORDS)
    index = tl.minimum(index, (rows + 15) // 16 * UNITS - 1)  # the last is written again
    record = records + (first_tile * UNITS + index).to(tl.int64) * ENCODING.record
    lane = tl.arange(0, 32)[:, None, None]
    codes = record[None, :, None] + lane * 8 + tl.arange(0, 8)[None, None, :]
    t = tl.arange(0, 4)[:, None, None, None, None]
    row = tl.arange(0, 8)[None, :, None, None, None] + tl.arange(0, 2)[:, None] * 8
    header = header_of(record[None, None, :, None, None] + t * 0, row, ENCODING)
    row = (index // UNITS)[None, None, :, None, None] * 16 + row
    column = (index % UNITS)[None, None, :, None, None] * 256 + t * 4 + tl.arange(0, 4)
    target = out + row.to(tl.int64) * K + column
    record = record_of(codes, header, ENCODING)
    for run in tl.static_range(16):
        words = words_of(record, run, ENCODING)
        code, scale, shift = elements_of(words, run, ENCODING, DTYPE, EMULATE)
        code = tl.reshape(code, (8, 4, RECORDS, 2, 2, 2))  # g t record hc hr half
        code = tl.reshape(tl.permute(code, (1, 0, 2, 4, 3, 5)), (4, 8, RECORDS, 2, 4))
        element = code * scale + shift
        kept = (row < rows) & (column + run * 16 < K)
        tl.store(target + run * 16, element.to(out.dtype.element_ty), kept)


def dequantize(weight: Fragments, start: int, out: Tensor) -> None:
    """Rows `start` (a multiple of 16) and following into out [rows, K], contiguous."""
    rows = len(out)
    units = -(-weight.inputs // UNIT)
    emulate = interpreted()
    together = 32 if emulate else _WARPS  # the interpreter pays for programs alone
    grid = (triton.cdiv(triton.cdiv(rows, TILE) * units, together),)
    dequantize_kernel[grid](
        weight.records,
        out,
        start // TILE,
        rows,
        K=weight.inputs,
        ENCODING=weight.encoding,
        RECORDS=together,
        EMULATE=emulate,
        num_warps=_WARPS,
    )


def _specimen(encoding: Encoding) -> Specimen:
    signature = {"records": "*i16", "out": "*bf16", "first_tile": "i32", "rows": "i32"}
    constants = {"K": 4096, "ENCODING": encoding, "RECORDS": _WARPS, "EMULATE": False}
    return Specimen(
        dequantize_kernel, signature, constants, num_warps=_WARPS, aligned=("records", "out")
    )


SPECIMENS = tuple(map(_specimen, (ENCODINGS[GgmlType.Q4_K], ENCODINGS[GgmlType.Q3_K], *GROUPED)))
