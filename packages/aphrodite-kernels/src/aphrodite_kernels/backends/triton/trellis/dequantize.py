# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
"""What a trellis decodes to as a dense matrix, for the vendor's product.

Floor: the bytes of the records read and of the matrix written over the bandwidth of a copy.
"""

import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.backends.triton.trellis.decode import field_of, loaded, pair_numbers
from aphrodite_kernels.backends.triton.trellis.fields import TILE, UNIT, TrellisFields

_WARPS = 4
"""Records of a program, one to a warp."""


@triton.jit(do_not_specialize=["first_record", "records"])
def decode_kernel(
    words,
    out,
    first_record,
    records,
    K: tl.constexpr,
    BITS: tl.constexpr,
    BOOK: tl.constexpr,
    RECORDS: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """RECORDS of `records` records, from `first_record` on, into out [rows, K]."""
    UNITS: tl.constexpr = K // 128
    RECORD: tl.constexpr = 64 * field_of(BITS)
    lane = tl.arange(0, 32)
    index = tl.program_id(0) * RECORDS + tl.arange(0, RECORDS)
    index = tl.minimum(index, records - 1)  # the last is written again
    record = words + (first_record + index).to(tl.int64)[:, None] * RECORD
    own = loaded(record, lane, BITS)
    before = loaded(record, (lane + 31) % 32, BITS)
    g = tl.reshape(lane, (8, 4, 1, 1, 1, 1, 1)) // 4
    t = tl.reshape(lane, (8, 4, 1, 1, 1, 1, 1)) % 4
    two = tl.arange(0, 2)
    at = index[None, None, :, None, None, None, None]
    row = at // UNITS * 16 + two[:, None, None, None] * 8 + g
    column = at % UNITS * 128 + two[:, None] * 16 + two[:, None, None] * 8 + t * 2 + two
    target = out + row.to(tl.int64) * K + column
    for pair in tl.static_range(4):
        numbers = pair_numbers(own, before, pair, BITS, BOOK, EMULATE)
        numbers = tl.reshape(numbers, (8, 4, RECORDS, 2, 2, 2, 2))  # hr hc tile half
        tl.store(target + pair * 32, numbers.to(tl.float32).to(out.dtype.element_ty))


def decode(weight: TrellisFields, start: int, out: Tensor) -> None:
    """Rows `start` (a multiple of 16) and following into out [rows, K], contiguous."""
    units = weight.inner // UNIT
    records = len(out) // TILE * units
    emulate = interpreted()
    together = 32 if emulate else _WARPS  # the interpreter pays for programs alone
    decode_kernel[(triton.cdiv(records, together),)](
        weight.words,
        out,
        start // TILE * units,
        records,
        K=weight.inner,
        BITS=weight.bits,
        BOOK=weight.codebook.value,
        RECORDS=together,
        EMULATE=emulate,
        num_warps=_WARPS,
    )


SPECIMENS = tuple(
    Specimen(
        decode_kernel,
        {"words": "*i32", "out": "*bf16", "first_record": "i32", "records": "i32"},
        {"K": 4096, "BITS": bits, "BOOK": book, "RECORDS": _WARPS, "EMULATE": False},
        num_warps=_WARPS,
        aligned=("words", "out"),
    )
    for bits, book in ((4, "mul1"), (3, "3inst"), (6, "mcg"))
)
