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
def dense_kernel(
    words,
    out,
    first_record,
    records,
    K: tl.constexpr,
    PAIR_BITS: tl.constexpr,
    BOOK: tl.constexpr,
    RECORDS: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """RECORDS of `records` records, from `first_record` on, into out [rows, K]."""
    UNITS: tl.constexpr = K // 128
    RECORD: tl.constexpr = 8 * field_of(PAIR_BITS)
    lane = tl.arange(0, 32)
    index = tl.program_id(0) * RECORDS + tl.arange(0, RECORDS)
    index = tl.minimum(index, records - 1)  # the last is written again
    record = words + (first_record + index).to(tl.int64)[:, None] * RECORD
    own = loaded(record, lane, PAIR_BITS)
    before = loaded(record, (lane + 31) % 32, PAIR_BITS)
    first = pair_numbers(own, before, 0, PAIR_BITS, BOOK, EMULATE)
    second = pair_numbers(own, before, 1, PAIR_BITS, BOOK, EMULATE)
    third = pair_numbers(own, before, 2, PAIR_BITS, BOOK, EMULATE)
    fourth = pair_numbers(own, before, 3, PAIR_BITS, BOOK, EMULATE)
    every = tl.join(tl.join(first, third), tl.join(second, fourth))
    every = tl.reshape(every, (8, 4, RECORDS, 2, 2, 2, 2, 4))  # g t record hr hc tile half pair
    every = tl.reshape(tl.permute(every, (2, 3, 0, 7, 5, 4, 1, 6)), (RECORDS, 16, 128))
    at = index[:, None, None]
    row = at // UNITS * 16 + tl.arange(0, 16)[:, None]
    column = at % UNITS * 128 + tl.arange(0, 128)
    target = out + row.to(tl.int64) * K + column
    tl.store(target, every.to(tl.float32).to(out.dtype.element_ty))


def decode(weight: TrellisFields, start: int, out: Tensor) -> None:
    """Rows `start` (a multiple of 16) and following into out [rows, K], contiguous."""
    units = weight.inner // UNIT
    records = len(out) // TILE * units
    emulate = interpreted()
    together = 32 if emulate else _WARPS  # the interpreter pays for programs alone
    dense_kernel[(triton.cdiv(records, together),)](
        weight.words,
        out,
        start // TILE * units,
        records,
        K=weight.inner,
        PAIR_BITS=weight.pair_bits,
        BOOK=weight.codebook.value,
        RECORDS=together,
        EMULATE=emulate,
        num_warps=_WARPS,
    )


SPECIMENS = tuple(
    Specimen(
        dense_kernel,
        {"words": "*i32", "out": "*bf16", "first_record": "i32", "records": "i32"},
        {"K": 4096, "PAIR_BITS": int(2 * bits), "BOOK": book, "RECORDS": _WARPS, "EMULATE": False},
        num_warps=_WARPS,
        aligned=("words", "out"),
    )
    for bits, book in ((4, "mul1"), (1.5, "mul1"), (3, "3inst"), (6, "mcg"))
)
