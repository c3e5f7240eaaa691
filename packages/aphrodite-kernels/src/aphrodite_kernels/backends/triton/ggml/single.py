# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
"""The product of a single row with a fragmented weight, on tensor cores.

An instruction multiplies records by eight columns, of which a row is only one. So column j takes
the inputs of group j, zero in all other groups, and the eight sums of a row of the weight come in
one place, where lanes scale two each instead of eight alike. A lane reads the inputs of two runs,
not of sixteen, and the scales of two groups. Otherwise as in `product.py`.

Floor: the bytes of the records over the read bandwidth.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.decode import (
    codes_of,
    factors_written,
    header_of,
    made_in,
    offset_of,
    planes_of,
    written,
)
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, GROUPED, Encoding
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.ggml.operands import (
    code_pointers,
    input_operand,
    loads_end_here,
    prefetch,
    repeat_tiles,
    weight_operand,
)
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import GgmlType

REGISTERS = {5: 80, 8: 128}
"""Of a thread, by the largest number of bits of a code: so that three programs of eight warps run
at once, or two where more words are on their way.
"""


_VECTOR = 16
"""Bytes to which inputs are aligned."""


@triton.constexpr_function
def pick_assembly(wanted: int) -> str:
    """PTX that takes the pair $1 if $2 is `wanted`, else zero."""
    return f"{{ .reg .pred p; setp.eq.s32 p, $2, {wanted}; selp.b32 $0, $1, 0, p; }}"


@triton.constexpr_function
def distance_of(encoding: Encoding) -> int:
    """Columns from the first part of a lane's inputs to the second: a run, or eight groups."""
    return 16 if encoding.runs == 2 else 128


@triton.jit
def group_factor(s, WARPS: tl.constexpr, TILES: tl.constexpr):
    """Of two groups of each lane, [4, 8, WARPS, TILES, 2, 2] -> [WARPS, 16 TILES, 8]."""
    return tl.reshape(tl.permute(s, (2, 3, 4, 1, 0, 5)), (WARPS, TILES * 16, 8))


@triton.jit
def loaded(tile_records, unit, UNITS: tl.constexpr, ENCODING: tl.constexpr):
    """Planes of unit `unit` of each warp, scales and biases of its groups, the header's units.

    Scales and biases come for each eight groups, as they are written; the last unit stands for any
    beyond it.
    """
    BLOCKS: tl.constexpr = ENCODING.low + ENCODING.high
    SETS: tl.constexpr = 2 // ENCODING.runs
    record = tile_records + tl.minimum(unit, UNITS - 1)[:, None] * ENCODING.record
    codes = code_pointers(record)
    row = tl.arange(0, 8)[None, :, None, None, None, None]
    row += tl.arange(0, 2)[None, None, None, None, :, None] * 8
    header = header_of(record[None, None, :, :, None, None], row, ENCODING)
    group = tl.arange(0, 4)[:, None, None, None, None, None] * 2 + tl.arange(0, 2)
    words = ()
    for block in tl.static_range(BLOCKS):
        words += (tl.load(codes + block * 256),)
    for eight in tl.static_range(SETS):
        words += written(header, group + eight * 8, ENCODING)
    same = tl.arange(0, 4)[:, None, None, None, None, None] * 0
    return words + (tl.load(header + (ENCODING.words - 1) + same),)


@triton.jit
def factors(words, EIGHT: tl.constexpr, ENCODING: tl.constexpr, OFFSET: tl.constexpr):
    """Scale and shift of groups 8 EIGHT to 8 EIGHT + 7: codes with an offset are still to shift."""
    HEADER: tl.constexpr = ENCODING.low + ENCODING.high
    scale = words[HEADER + 2 * EIGHT]
    bias = words[HEADER + 2 * EIGHT + 1]
    units = words[HEADER + 4 // ENCODING.runs]
    return factors_written(scale, bias, units, ENCODING, OFFSET)


@triton.jit
def only_in(part, column, WANTED: tl.constexpr, EMULATE: tl.constexpr):
    """`part` where `column` (int32) is WANTED, elsewhere zero: two 16-bit elements at a time.

    Both are of one column: a lane loads four neighbours.
    """
    if EMULATE:
        return tl.where(column == WANTED, part, 0.0)
    else:
        column = tl.broadcast_to(column, part.shape)
        return tl.inline_asm_elementwise(
            pick_assembly(WANTED), "=r,r,r,r", [part, column], part.dtype, is_pure=True, pack=2
        )


@triton.jit
def unit_sums(
    words,
    parts,
    total,
    ENCODING: tl.constexpr,
    WARPS: tl.constexpr,
    TILES: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """`total` and the products of one unit of each warp, a column for each eighth group.

    parts: two [32, WARPS, 1, 4], of the runs of a group or of groups 8 apart.
    """
    EACH: tl.constexpr = 8 * ENCODING.runs
    OFFSET: tl.constexpr = offset_of(DTYPE, ENCODING)
    ones = tl.full((WARPS, 16, 16), 1.0, tl.float32).to(DTYPE)
    column = tl.arange(0, 32)[:, None, None, None] // 4
    for run in tl.static_range(16):
        part = parts[run % 2 if ENCODING.runs == 2 else run // 8]
        part = only_in(part.to(DTYPE), column, run // ENCODING.runs % 8, EMULATE)
        factor = input_operand(part, WARPS, 1)
        fragment = codes_of(planes_of(words, run, ENCODING), run, ENCODING, DTYPE, EMULATE)
        weight = weight_operand(fragment, WARPS, TILES)
        if run % EACH == 0:
            products = tl.dot(weight, factor, input_precision="ieee")
        else:
            products = tl.dot(weight, factor, products, input_precision="ieee")
        if run % EACH == EACH - 1:
            scale, shift = factors(words, run // EACH, ENCODING, OFFSET)
            total += group_factor(scale, WARPS, TILES) * products
            if ENCODING.zero is None:
                first = input_operand(parts[run // EACH].to(DTYPE), WARPS, 1)
                sums = tl.dot(ones, first, input_precision="ieee")
                if ENCODING.runs == 2:
                    second = input_operand(parts[1].to(DTYPE), WARPS, 1)
                    sums = tl.dot(ones, second, sums, input_precision="ieee")
                sums = repeat_tiles(sums, WARPS, TILES, 1)
                total += group_factor(shift, WARPS, TILES) * sums
    return total


@triton.jit
def single_kernel(
    records,
    x,
    bias,
    out,
    outputs,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    DEEP: tl.constexpr,
    TILES: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """16 TILES elements of out; DEEP warps share K."""
    UNITS: tl.constexpr = (K + 255) // 256
    LAST: tl.constexpr = (UNITS - 1) // DEEP * DEEP
    DTYPE: tl.constexpr = made_in(x.dtype.element_ty, EMULATE)
    warp = tl.arange(0, DEEP)
    tile = tl.program_id(0) * TILES + tl.arange(0, TILES)[None, :]
    tile = tl.minimum(tile, (outputs + 15) // 16 - 1)
    tile_records = records + tile.to(tl.int64) * (UNITS * ENCODING.record)
    lane = tl.arange(0, 32)[:, None, None, None]
    first = lane // 4 * (16 * ENCODING.runs) + lane % 4 * 4 + tl.arange(0, 4)
    NEXT: tl.constexpr = distance_of(ENCODING)
    if PDL:
        cuda.gdc_launch_dependents()
    for turn in tl.static_range(AHEAD):
        prefetch(tile_records, (turn + 1) * DEEP + warp, UNITS, ENCODING)
    later = loaded(tile_records, warp, UNITS, ENCODING)
    if PDL:
        cuda.gdc_wait()
    total = tl.zeros((DEEP, TILES * 16, 8), tl.float32)
    for start in range(0, UNITS, DEEP):
        words = later
        if AHEAD:
            prefetch(tile_records, start + (AHEAD + 1) * DEEP + warp, UNITS, ENCODING)
        later = loaded(tile_records, tl.minimum(start + DEEP, LAST) + warp, UNITS, ENCODING)
        loads_end_here(start, not EMULATE)
        column = (start + warp)[None, :, None, None] * 256 + first
        if K % (256 * DEEP) == 0:
            parts = (tl.load(x + column), tl.load(x + column + NEXT))
        else:
            parts = (
                tl.load(x + column, column < K, 0.0),
                tl.load(x + column + NEXT, column + NEXT < K, 0.0),
            )
        total = unit_sums(words, parts, total, ENCODING, DEEP, TILES, DTYPE, EMULATE)
    result = tl.sum(tl.sum(total, 2), 0)
    column = tl.program_id(0) * (TILES * 16) + tl.arange(0, TILES * 16)
    if HAS_BIAS:
        result += tl.load(bias + column, column < outputs, 0.0)
    tl.store(out + column, result.to(out.dtype.element_ty), column < outputs)


def registers_for(encoding: Encoding) -> int:
    """Of a thread, at most."""
    return next(most for bits, most in REGISTERS.items() if encoding.low + encoding.high <= bits)


def single_product(
    x: Tensor,
    weight: Fragments,
    bias: Tensor | None,
    *,
    deep: int,
    tiles: int = 1,
    registers: int | None = None,
    overlapped: bool = False,
) -> Tensor:
    """x [1, K] Wᵀ (+ bias).

    deep: warps that share K; tiles of 16 columns to a program; registers: other than by REGISTERS.
    """
    emulate = interpreted()
    if x.data_ptr() % _VECTOR:  # a lane would not get the neighbours that `only_in` takes together
        x = x.clone()
    out = torch.empty((1, weight.outputs), dtype=x.dtype, device=x.device)
    single_kernel[(triton.cdiv(len(weight.records), tiles),)](
        weight.records,
        x,
        bias,
        out,
        weight.outputs,
        K=weight.inputs,
        ENCODING=weight.encoding,
        DEEP=deep,
        TILES=tiles,
        AHEAD=0 if emulate else 1,
        HAS_BIAS=bias is not None,
        PDL=overlapped,
        EMULATE=emulate,
        num_warps=deep,
        num_stages=1,
        launch_pdl=overlapped,
        maxnreg=registers or registers_for(weight.encoding),
    )
    return out


def _specimen(
    encoding: Encoding, deep: int, *, inputs: int = 4096, overlapped: bool = False
) -> Specimen:
    return Specimen(
        single_kernel,
        {"records": "*i16", "x": "*bf16", "bias": "*fp32", "out": "*bf16", "outputs": "i32"},
        {
            "K": inputs,
            "ENCODING": encoding,
            "DEEP": deep,
            "TILES": 1,
            "AHEAD": 1,
            "HAS_BIAS": False,
            "PDL": overlapped,
            "EMULATE": False,
        },
        num_warps=deep,
        num_stages=1,
        registers=registers_for(encoding),
        aligned=("records", "x", "bias", "out", "outputs"),
        capabilities=(90,) if overlapped else (80, 90),
    )


SPECIMENS = (
    _specimen(ENCODINGS[GgmlType.Q4_K], 8, overlapped=True),
    _specimen(ENCODINGS[GgmlType.Q6_K], 8),
    _specimen(ENCODINGS[GgmlType.Q8_0], 8),
    _specimen(ENCODINGS[GgmlType.Q5_1], 4, inputs=576),
    _specimen(ENCODINGS[GgmlType.Q2_K], 4),
    _specimen(ENCODINGS[GgmlType.IQ4_XS], 4),
    *(_specimen(encoding, 8) for encoding in GROUPED),
)
