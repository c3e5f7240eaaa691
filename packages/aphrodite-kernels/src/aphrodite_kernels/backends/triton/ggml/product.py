# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
"""Products of few rows with a fragmented weight, on tensor cores.

A warp takes records of its own along K: it multiplies the codes of a group as they are, in whole
numbers of half precision, and scales the sums in float32: exact but for float32 roundings, up to
128 times those of the bare sum in bfloat16 (1024 in float16) where groups have a bias. Sums of a
group's inputs, which its bias multiplies, come with arranged inputs or are a product with ones.
Warps meet once, at the end, so a row's result does not depend on its neighbours, and among shapes
of one depth and arrangement not on the number of rows.

Floor: the bytes of the records over the read bandwidth. Bound, at 8 rows of Q4_K on an H200: about
3 instructions per weight and lane of the 3.6 for which that leaves time.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.arrange import ARRANGED, arranged
from aphrodite_kernels.backends.triton.ggml.decode import (
    codes_of,
    factors_of,
    fetch,
    header_of,
    made_in,
    offset_of,
    units_of,
)
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import GgmlType

ARRANGED_UNIT = tl.constexpr(ARRANGED)


@triton.constexpr_function
def sums_made(encoding, step):
    """Sums of inputs are needed, and do not come with the inputs."""
    return encoding.zero is None and step == 16


@triton.constexpr_function
def step_of(arranged):
    """Elements from the inputs of a run of columns to those of the next."""
    return ARRANGED // 16 if arranged else 16


@triton.jit
def weight_operand(codes, WARPS: tl.constexpr, TILES: tl.constexpr):
    """Codes [32, WARPS, TILES, 8] -> operand A [WARPS, 16 TILES, 16], lane by lane in place."""
    codes = tl.reshape(codes, (8, 4, WARPS, TILES, 2, 2, 2))  # g t warp tile hc hr half
    codes = tl.permute(codes, (2, 3, 5, 0, 4, 1, 6))
    return tl.reshape(codes, (WARPS, TILES * 16, 16))


@triton.jit
def input_operand(x, WARPS: tl.constexpr, EIGHTS: tl.constexpr):
    """Inputs [32, WARPS, EIGHTS, 4] -> operand B [WARPS, 16, 8 EIGHTS], lane by lane in place."""
    x = tl.reshape(x, (8, 4, WARPS, EIGHTS, 2, 2))  # row t warp eight hc half
    x = tl.permute(x, (2, 4, 1, 5, 3, 0))
    return tl.reshape(x, (WARPS, 16, EIGHTS * 8))


@triton.jit
def row_factor(s, WARPS: tl.constexpr, TILES: tl.constexpr, EIGHTS: tl.constexpr):
    """Scales [4, 8, WARPS, TILES, 2] -> [WARPS, 16 TILES, 8 EIGHTS], equal along the last."""
    s = tl.permute(s, (2, 3, 4, 1, 0))
    s = tl.reshape(s, (WARPS, TILES * 16, 1, 4, 1))
    s = tl.broadcast_to(s, (WARPS, TILES * 16, EIGHTS, 4, 2))
    return tl.reshape(s, (WARPS, TILES * 16, EIGHTS * 8))


@triton.jit
def repeat_tiles(sums, WARPS: tl.constexpr, TILES: tl.constexpr, EIGHTS: tl.constexpr):
    """[WARPS, 16, 8 EIGHTS] -> [WARPS, 16 TILES, 8 EIGHTS]."""
    if TILES > 1:
        sums = tl.reshape(sums, (WARPS, 1, 16, EIGHTS * 8))
        sums = tl.broadcast_to(sums, (WARPS, TILES, 16, EIGHTS * 8))
    return tl.reshape(sums, (WARPS, TILES * 16, EIGHTS * 8))


@triton.jit
def column_factor(s, WARPS: tl.constexpr, TILES: tl.constexpr, EIGHTS: tl.constexpr):
    """Sums [32, WARPS, EIGHTS, 2] -> [WARPS, 16 TILES, 8 EIGHTS], lane by lane in place."""
    s = tl.reshape(s, (8, 4, WARPS, EIGHTS, 2))
    s = tl.permute(s, (2, 0, 3, 1, 4))  # warp g eight t half
    s = tl.reshape(s, (WARPS, 1, 8, EIGHTS * 8))
    s = tl.broadcast_to(s, (WARPS, TILES * 2, 8, EIGHTS * 8))
    return tl.reshape(s, (WARPS, TILES * 16, EIGHTS * 8))


@triton.jit
def code_pointers(records):
    """To the words of each lane in the first blocks of records [WARPS, TILES]."""
    lane = tl.arange(0, 32)[:, None, None, None]
    return records[None, :, :, None] + lane * 8 + tl.arange(0, 8)[None, None, None, :]


@triton.jit
def header_pointers(records, ENCODING: tl.constexpr):
    """To the headers of the rows whose results a lane holds, [4, 8, WARPS, TILES, 2]."""
    row = tl.arange(0, 8)[None, :, None, None, None] + tl.arange(0, 2) * 8
    same = tl.arange(0, 4)[:, None, None, None, None] * 0
    return header_of(records[None, None, :, :, None] + same, row, ENCODING)


@triton.jit
def prefetch(record, ENCODING: tl.constexpr):
    """Ask for records [WARPS, TILES] to be brought into L2, a line of 128 bytes per lane."""
    line = tl.arange(0, 32) * 64
    line = tl.minimum(line, ENCODING.record - 1)
    address = (record[:, :, None] + line[None, None, :]).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.b32 $0, 0;",
        "=r,l",
        [address],
        tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def input_pointers(
    x, first_row, rows, x_stride, units, EIGHTS: tl.constexpr, ARRANGED: tl.constexpr
):
    """To what each lane multiplies in the first run of the first unit, [32, 1, EIGHTS, 4]."""
    lane = tl.arange(0, 32)[:, None, None, None]
    eight = tl.arange(0, EIGHTS)[None, None, :, None]
    column = tl.arange(0, 4)[None, None, None, :]
    if ARRANGED:
        return x + (first_row // 8 + eight) * (units * ARRANGED_UNIT) + lane * 4 + column
    else:
        row = tl.minimum(first_row + lane // 4 + 8 * eight, rows - 1)
        return x + row * x_stride + lane % 4 * 4 + column


@triton.jit
def sum_pointers(sums, first_row, units, EIGHTS: tl.constexpr, ENCODING: tl.constexpr):
    """To the sums of the first group of the first unit for each lane, [32, 1, EIGHTS, 2]."""
    eight = first_row // 8 + tl.arange(0, EIGHTS)[None, None, :, None]
    row = tl.arange(0, 32)[:, None, None, None] % 4 * 2 + tl.arange(0, 2)[None, None, None, :]
    return sums + eight * (units * (8 * 16 // ENCODING.runs)) + row


@triton.jit
def unit_product(
    codes,
    header,
    inputs,
    sums,
    unit,
    left,
    total,
    ENCODING: tl.constexpr,
    WARPS: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    STEP: tl.constexpr,
    WHOLE: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """`total` and the products of one unit of each warp. Without `sums` they are made here.

    STEP: elements from the inputs of a run to the next. Without WHOLE, `left` is the number of
    columns from each input of the first run to the end of x.
    """
    OFFSET: tl.constexpr = offset_of(DTYPE, ENCODING)
    SUMMED: tl.constexpr = sums_made(ENCODING, STEP)
    ones = tl.full((WARPS, 16, 16), 1.0, tl.float32).to(DTYPE)
    if sums is not None:
        sums += unit[None, :, None, None] * (8 * 16 // ENCODING.runs)
    units = units_of(header, ENCODING)
    words = (0, 0, 0, 0)
    for run in tl.static_range(16):
        words = fetch(codes, header, words, run, ENCODING)
        if WHOLE:
            part = tl.load(inputs + run * STEP)
        else:
            part = tl.load(inputs + run * STEP, run * 16 < left, 0.0)
        factor = input_operand(part.to(DTYPE), WARPS, EIGHTS)
        fragment = codes_of(words, run, ENCODING, DTYPE, EMULATE)
        weight = weight_operand(fragment, WARPS, TILES)
        if run % ENCODING.runs == 0:
            products = tl.dot(weight, factor, input_precision="ieee")
            if SUMMED:
                group = tl.dot(ones, factor, input_precision="ieee")
        else:
            products = tl.dot(weight, factor, products, input_precision="ieee")
            if SUMMED:
                group = tl.dot(ones, factor, group, input_precision="ieee")
        if run % ENCODING.runs == ENCODING.runs - 1:
            scale, shift = factors_of(words, units, run // ENCODING.runs, ENCODING, OFFSET)
            total += row_factor(scale, WARPS, TILES, EIGHTS) * products
            if ENCODING.zero is None:
                if SUMMED:
                    sum_of_inputs = repeat_tiles(group, WARPS, TILES, EIGHTS)
                else:
                    sum_of_inputs = tl.load(sums + run // ENCODING.runs * 8)
                    sum_of_inputs = column_factor(sum_of_inputs, WARPS, TILES, EIGHTS)
                total += row_factor(shift, WARPS, TILES, EIGHTS) * sum_of_inputs
    return total


@triton.jit(do_not_specialize=["rows"])
def product_kernel(
    records,
    x,
    sums,
    bias,
    out,
    rows,
    outputs,
    x_stride,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    DEEP: tl.constexpr,
    SIDE: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    ARRANGED: tl.constexpr,
    AHEAD: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """16 TILES SIDE columns of out for 8 EIGHTS rows. x is as it came, or ARRANGED (arrange.py)."""
    UNITS: tl.constexpr = (K + 255) // 256
    WARPS: tl.constexpr = DEEP * SIDE
    WHOLE: tl.constexpr = ARRANGED or K % (256 * DEEP) == 0
    STEP: tl.constexpr = step_of(ARRANGED)
    DTYPE: tl.constexpr = made_in(x.dtype.element_ty, EMULATE)
    first_tile = tl.program_id(0) * (TILES * SIDE)
    first_row = tl.program_id(1) * (8 * EIGHTS)
    warp = tl.arange(0, WARPS)
    tile = first_tile + (warp % SIDE * TILES)[:, None] + tl.arange(0, TILES)[None, :]
    tile = tl.minimum(tile, (outputs + 15) // 16 - 1)
    tile_records = records + tile.to(tl.int64) * (UNITS * ENCODING.record)
    units = (UNITS + DEEP - 1) // DEEP * DEEP
    inputs = input_pointers(x, first_row, rows, x_stride, units, EIGHTS, ARRANGED)
    if sums is not None:
        sums = sum_pointers(sums, first_row, units, EIGHTS, ENCODING)
    if PDL:
        cuda.gdc_launch_dependents()
    for turn in tl.static_range(AHEAD):
        unit = tl.minimum(turn * DEEP + warp // SIDE, UNITS - 1)
        prefetch(tile_records + unit[:, None] * ENCODING.record, ENCODING)
    if PDL:
        cuda.gdc_wait()
    total = tl.zeros((WARPS, TILES * 16, EIGHTS * 8), tl.float32)
    for start in range(0, UNITS, DEEP):
        unit = start + warp // SIDE
        if AHEAD:
            later = tl.minimum(unit + AHEAD * DEEP, UNITS - 1)
            prefetch(tile_records + later[:, None] * ENCODING.record, ENCODING)
        part = inputs + unit[None, :, None, None] * (16 * STEP)
        left = K - unit[None, :, None, None] * 256 - column_of_lane()
        if K % (256 * DEEP) != 0:
            unit = tl.minimum(unit, UNITS - 1)
        record = tile_records + unit[:, None] * ENCODING.record
        codes, header = code_pointers(record), header_pointers(record, ENCODING)
        total = unit_product(
            codes, header, part, sums, start + warp // SIDE, left, total,
            ENCODING, WARPS, TILES, EIGHTS, STEP, WHOLE, DTYPE, EMULATE,
        )  # fmt: skip
    result = tl.reshape(total, (DEEP, SIDE * TILES * 16, EIGHTS * 8))
    store_result(tl.sum(result, 0), bias, out, first_tile * 16, first_row, rows, outputs, HAS_BIAS)


@triton.jit
def column_of_lane():
    """Within a run of inputs as they came, [32, 1, 1, 4]."""
    lane = tl.arange(0, 32)[:, None, None, None]
    return lane % 4 * 4 + tl.arange(0, 4)[None, None, None, :]


@triton.jit
def store_result(result, bias, out, first_column, first_row, rows, outputs, HAS_BIAS: tl.constexpr):
    """Of columns by rows."""
    column = first_column + tl.arange(0, result.shape[0])[:, None]
    row = first_row + tl.arange(0, result.shape[1])[None, :]
    if HAS_BIAS:
        result += tl.load(bias + column, column < outputs, 0.0)
    kept = (column < outputs) & (row < rows)
    tl.store(out + row * outputs + column, result.to(out.dtype.element_ty), kept)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a program computes."""

    deep: int
    """Warps that share K."""
    side: int
    """Warps side by side, each with its tiles: they read the same inputs."""
    tiles: int
    """Of 16 columns of the result, to a warp."""
    eights: int
    """Of 8 rows of the result."""
    arranged: bool = False
    """Inputs are brought into the order of lanes first."""
    ahead: int = 1
    """Turns along K by which records are fetched before they are read; 0: when they are read."""


def product(
    x: Tensor, weight: Fragments, bias: Tensor | None, shape: Shape, *, overlapped: bool = False
) -> Tensor:
    """x [T, K] Wᵀ (+ bias), for any T.

    overlapped: start while the kernel before still runs (from sm_90 on).
    """
    emulate = interpreted()
    rows, outputs = len(x), weight.outputs
    out = torch.empty((rows, outputs), dtype=x.dtype, device=x.device)
    grid = (
        triton.cdiv(len(weight.records), shape.tiles * shape.side),
        triton.cdiv(rows, 8 * shape.eights),
    )
    sums = None
    if shape.arranged:
        eights = grid[1] * shape.eights
        x, sums = arranged(x, eights, shape.deep, weight.encoding, overlapped=overlapped)
    product_kernel[grid](
        weight.records,
        x,
        sums,
        bias,
        out,
        rows,
        outputs,
        x.stride(0),
        K=weight.inputs,
        ENCODING=weight.encoding,
        DEEP=shape.deep,
        SIDE=shape.side,
        TILES=shape.tiles,
        EIGHTS=shape.eights,
        ARRANGED=shape.arranged,
        AHEAD=0 if emulate else shape.ahead,
        HAS_BIAS=bias is not None,
        PDL=overlapped,
        EMULATE=emulate,
        num_warps=shape.deep * shape.side,
        num_stages=1,
        launch_pdl=overlapped,
    )
    return out


def _specimen(
    kind: GgmlType, shape: Shape, *, inputs: int = 4096, overlapped: bool = False
) -> Specimen:
    signature = {"records": "*i16", "x": "*bf16", "bias": "*fp32", "out": "*bf16"}
    summed = shape.arranged and ENCODINGS[kind].zero is None
    signature |= dict.fromkeys(("rows", "outputs", "x_stride"), "i32")
    if summed:
        signature["sums"] = "*fp32"
    constants = {
        "K": inputs,
        "ENCODING": ENCODINGS[kind],
        "DEEP": shape.deep,
        "SIDE": shape.side,
        "TILES": shape.tiles,
        "EIGHTS": shape.eights,
        "ARRANGED": shape.arranged,
        "AHEAD": shape.ahead,
        "HAS_BIAS": False,
        "PDL": overlapped,
        "EMULATE": False,
    } | ({} if summed else {"sums": None})
    return Specimen(
        product_kernel,
        signature,
        constants,
        num_warps=shape.deep * shape.side,
        num_stages=1,
        aligned=("records", "x", "bias", "out", "outputs", "x_stride", *(["sums"] * summed)),
        capabilities=(90,) if overlapped else (80, 90),
    )


SPECIMENS = (
    _specimen(GgmlType.Q4_K, Shape(8, 1, 1, 1)),
    _specimen(GgmlType.Q4_K, Shape(2, 4, 1, 4, arranged=True)),
    _specimen(GgmlType.Q6_K, Shape(8, 1, 1, 4, arranged=True)),
    _specimen(GgmlType.Q5_1, Shape(4, 1, 2, 2), inputs=576),
    _specimen(GgmlType.IQ4_XS, Shape(4, 2, 1, 4, arranged=True), overlapped=True),
)
