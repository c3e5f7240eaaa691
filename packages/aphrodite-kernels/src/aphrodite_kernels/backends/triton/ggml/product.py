# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
"""Products of few rows with a fragmented weight, on tensor cores.

A warp takes records of its own along K: it multiplies the codes of a group as they are, in whole
numbers of half precision, and scales the sums in float32: exact but for float32 roundings, up to
128 times those of the bare sum in bfloat16 (1024 in float16) where groups have a bias. Sums of a
group's inputs, which its bias multiplies, come with the inputs, which are brought into the order of
lanes first. Warps meet once, at the end, so a row's result does not depend on its neighbours, and
among shapes of one depth not on the number of rows.

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
from aphrodite_kernels.backends.triton.ggml.arrange import arranged
from aphrodite_kernels.backends.triton.ggml.decode import (
    codes_of,
    factors_of,
    made_in,
    offset_of,
    record_of,
    words_of,
)
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, GROUPED, Encoding
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.ggml.operands import (
    ARRANGED_UNIT,
    code_pointers,
    column_factor,
    header_pointers,
    input_operand,
    input_pair,
    input_pointers,
    loads_end_here,
    prefetch,
    row_factor,
    sum_pointers,
    weight_operand,
)
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import GgmlType


@triton.jit
def pair_product(
    record,
    parts,
    total,
    PAIR: tl.constexpr,
    ENCODING: tl.constexpr,
    WARPS: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """`total` and the products of a pair of runs."""
    OFFSET: tl.constexpr = offset_of(DTYPE, ENCODING)
    for half in tl.static_range(2):
        factor = input_operand(parts[half].to(DTYPE), WARPS, EIGHTS)
        words = words_of(record, 2 * PAIR + half, ENCODING)
        fragment = codes_of(words, 2 * PAIR + half, ENCODING, DTYPE, EMULATE)
        weight = weight_operand(fragment, WARPS, TILES)
        if half % ENCODING.runs == 0:
            products = tl.dot(weight, factor, input_precision="ieee")
        else:
            products = tl.dot(weight, factor, products, input_precision="ieee")
        if half % ENCODING.runs == ENCODING.runs - 1:
            scale, shift = factors_of(words, (2 * PAIR + half) // ENCODING.runs, ENCODING, OFFSET)
            total += row_factor(scale, WARPS, TILES, EIGHTS) * products
            if ENCODING.zero is None:
                sums = column_factor(parts[2 + half // ENCODING.runs], WARPS, TILES, EIGHTS)
                total += row_factor(shift, WARPS, TILES, EIGHTS) * sums
    return total


@triton.jit
def pair_inputs(
    inputs, sums, PAIR: tl.constexpr, ENCODING: tl.constexpr, EIGHTS: tl.constexpr
):  # fmt: skip
    """Inputs of both runs of a pair, then sums of its groups if there are."""
    GROUPS: tl.constexpr = 2 // ENCODING.runs
    parts = input_pair(inputs, PAIR, EIGHTS)
    if sums is not None:
        for group in tl.static_range(GROUPS):
            parts += (tl.load(sums + (PAIR * GROUPS + group) * 8),)
    return parts


@triton.jit
def unit_product(
    record,
    inputs,
    sums,
    unit,
    total,
    ENCODING: tl.constexpr,
    WARPS: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    PACED: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """`total` and the products of one unit of each warp."""
    if sums is not None:
        sums += unit[None, :, None, None] * (8 * 16 // ENCODING.runs)
    later = pair_inputs(inputs, sums, 0, ENCODING, EIGHTS)
    for pair in tl.static_range(8):
        parts = later
        if pair < 7:
            later = pair_inputs(inputs, sums, pair + 1, ENCODING, EIGHTS)
            loads_end_here(pair, PACED)
        total = pair_product(
            record, parts, total, pair, ENCODING, WARPS, TILES, EIGHTS, DTYPE, EMULATE
        )
    return total


@triton.jit
def turn_record(tile_records, unit, UNITS: tl.constexpr, ENCODING: tl.constexpr):
    """The words of unit `unit` of each warp, of the last unit where there is none."""
    record = tile_records + tl.minimum(unit, UNITS - 1)[:, None] * ENCODING.record
    return record_of(code_pointers(record), header_pointers(record, ENCODING), ENCODING)


@triton.jit(do_not_specialize=["rows"])
def product_kernel(
    records,
    x,
    sums,
    bias,
    out,
    rows,
    outputs,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    DEEP: tl.constexpr,
    SIDE: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    AHEAD: tl.constexpr,
    HELD: tl.constexpr,
    PACED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """16 TILES SIDE columns of out for 8 EIGHTS rows. x and its sums are from `arrange.py`."""
    UNITS: tl.constexpr = (K + 255) // 256
    WARPS: tl.constexpr = DEEP * SIDE
    DTYPE: tl.constexpr = made_in(x.dtype.element_ty, EMULATE)
    first_tile = tl.program_id(0) * (TILES * SIDE)
    first_row = tl.program_id(1) * (8 * EIGHTS)
    warp = tl.arange(0, WARPS)
    tile = first_tile + (warp % SIDE * TILES)[:, None] + tl.arange(0, TILES)[None, :]
    tile = tl.minimum(tile, (outputs + 15) // 16 - 1)
    tile_records = records + tile.to(tl.int64) * (UNITS * ENCODING.record)
    units = (UNITS + DEEP - 1) // DEEP * DEEP
    inputs = input_pointers(x, first_row, units, EIGHTS)
    if sums is not None:
        sums = sum_pointers(sums, first_row, units, EIGHTS, ENCODING)
    if PDL:
        cuda.gdc_launch_dependents()
    for turn in tl.static_range(AHEAD):
        prefetch(tile_records, (turn + HELD) * DEEP + warp // SIDE, UNITS, ENCODING)
    if HELD:
        record = turn_record(tile_records, warp // SIDE, UNITS, ENCODING)
    if PDL:
        cuda.gdc_wait()
    total = tl.zeros((WARPS, TILES * 16, EIGHTS * 8), tl.float32)
    for start in range(0, UNITS, DEEP):
        unit = start + warp // SIDE
        if AHEAD:
            prefetch(tile_records, unit + (AHEAD + HELD) * DEEP, UNITS, ENCODING)
        if HELD:
            current = record
            later = tl.minimum(start + DEEP, (UNITS - 1) // DEEP * DEEP) + warp // SIDE
            record = turn_record(tile_records, later, UNITS, ENCODING)
            loads_end_here(start, not EMULATE)
        else:
            current = turn_record(tile_records, unit, UNITS, ENCODING)
        part = inputs + unit[None, :, None, None] * ARRANGED_UNIT
        total = unit_product(
            current, part, sums, unit, total,
            ENCODING, WARPS, TILES, EIGHTS, PACED, DTYPE, EMULATE,
        )  # fmt: skip
    result = tl.reshape(total, (DEEP, SIDE * TILES * 16, EIGHTS * 8))
    store_result(tl.sum(result, 0), bias, out, first_tile * 16, first_row, rows, outputs, HAS_BIAS)


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
    ahead: int = 1
    """Turns along K by which records are fetched before they are loaded; 0: when they are."""
    held: int = 0
    """Turns by which records are loaded before they are multiplied: 0 or 1."""
    paced: bool = False
    """Inputs are loaded a pair of runs ahead, no more and no less."""
    registers: int | None = None
    """Of a thread, at most: how many programs run at once hangs on it."""


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
        K=weight.inputs,
        ENCODING=weight.encoding,
        DEEP=shape.deep,
        SIDE=shape.side,
        TILES=shape.tiles,
        EIGHTS=shape.eights,
        AHEAD=0 if emulate else shape.ahead,
        HELD=shape.held,
        PACED=shape.paced and not emulate,
        HAS_BIAS=bias is not None,
        PDL=overlapped,
        EMULATE=emulate,
        num_warps=shape.deep * shape.side,
        num_stages=1,
        launch_pdl=overlapped,
        maxnreg=shape.registers,
    )
    return out


def _specimen(
    encoding: Encoding, shape: Shape, *, inputs: int = 4096, overlapped: bool = False
) -> Specimen:
    signature = {"records": "*i16", "x": "*bf16", "bias": "*fp32", "out": "*bf16"}
    summed = encoding.zero is None
    signature |= dict.fromkeys(("rows", "outputs"), "i32")
    if summed:
        signature["sums"] = "*fp32"
    constants = {
        "K": inputs,
        "ENCODING": encoding,
        "DEEP": shape.deep,
        "SIDE": shape.side,
        "TILES": shape.tiles,
        "EIGHTS": shape.eights,
        "AHEAD": shape.ahead,
        "HELD": shape.held,
        "PACED": shape.paced,
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
        registers=shape.registers,
        aligned=("records", "x", "bias", "out", "outputs", *(["sums"] * summed)),
        capabilities=(90,) if overlapped else (80, 90),
    )


SPECIMENS = (
    _specimen(ENCODINGS[GgmlType.Q4_K], Shape(8, 1, 1, 1, held=1, registers=128)),
    _specimen(ENCODINGS[GgmlType.Q6_K], Shape(4, 2, 1, 1, held=1, registers=128)),
    _specimen(ENCODINGS[GgmlType.Q4_K], Shape(8, 1, 1, 2, held=1, registers=128, paced=True)),
    _specimen(ENCODINGS[GgmlType.Q6_K], Shape(8, 1, 1, 4, paced=True, registers=128)),
    _specimen(ENCODINGS[GgmlType.Q4_K], Shape(4, 1, 2, 4, paced=True, registers=168)),
    _specimen(ENCODINGS[GgmlType.Q5_1], Shape(4, 1, 2, 2), inputs=576),
    _specimen(
        ENCODINGS[GgmlType.IQ4_XS], Shape(4, 2, 1, 1, held=1, registers=128), overlapped=True
    ),
    *(_specimen(each, Shape(8, 1, 1, 1, held=1, registers=128)) for each in GROUPED),
)
