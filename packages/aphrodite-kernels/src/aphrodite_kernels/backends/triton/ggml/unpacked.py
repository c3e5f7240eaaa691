# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
"""Products of some rows with a fragmented weight, unpacked on its way to the tensor cores.

Elements are made as `dequantize.py` makes them, with one rounding to the dtype of x, but in the
registers from which tensor cores take them: lanes find in a record what they multiply, so W goes
through no shared memory, and every element is made once for up to 256 rows. The units of K of all
tiles form one line that programs share (`dense_shares.py`). None starts early: programs would pile
up where the kernel before has left room (H200, GPTQ at 256 rows: 15.1 ms a step instead of 11.4).

Floor: the bytes of the records over the read bandwidth below about 40 rows, the arithmetic above.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.dense_shares import gathered, shares
from aphrodite_kernels.backends.triton.dense_tiles import (
    GROUP,
    Tiling,
    Workspace,
    store_tile,
    tile_origin,
)
from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.decode import (
    codes_of,
    factors_written,
    header_of,
    made_in,
    offset_of,
    written,
)
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, GROUPED, UNIT, Encoding
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.layouts import GgmlType


@triton.jit(do_not_specialize=["rows"])
def order_kernel(
    x,
    out,
    rows,
    x_stride,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    PDL: tl.constexpr,
):
    """BLOCK columns of ROWS rows, zero beyond K: of each 16, lane t takes four from 4 t on, as two
    and two that lie eight apart.
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = (tl.program_id(1) * ROWS + tl.arange(0, ROWS))[:, None]
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[None, :]
    part = tl.load(x + row.to(tl.int64) * x_stride + column, (row < rows) & (column < K), 0.0)
    part = tl.reshape(part, (ROWS, BLOCK // 16, 4, 2, 2))
    part = tl.reshape(tl.permute(part, (0, 1, 3, 2, 4)), (ROWS, BLOCK))
    width = tl.num_programs(0) * BLOCK
    tl.store(out + row.to(tl.int64) * width + column, part, row < rows)


def ordered(x: Tensor, *, overlapped: bool) -> Tensor:
    """x [T, K] as [T, units of K], each 16 columns in the order in which tensor cores take them."""
    rows, columns = x.shape
    units = triton.cdiv(columns, UNIT)
    out = torch.empty(rows, units * UNIT, dtype=x.dtype, device=x.device)
    together = 64 if interpreted() else 2  # the interpreter pays for programs alone
    order_kernel[(units, triton.cdiv(rows, together))](
        x,
        out,
        rows,
        x.stride(0),
        K=columns,
        BLOCK=UNIT,
        ROWS=together,
        PDL=overlapped,
        num_warps=2,
    )
    return out


@triton.jit
def step_words(tile_records, step, ENCODING: tl.constexpr):
    """What a step needs of each record: words of the planes, scales, biases, the header's units."""
    GROUPS: tl.constexpr = 4 // ENCODING.runs
    record = tile_records + (step // 4).to(tl.int64) * ENCODING.record
    part = step % 4
    lane = tl.arange(0, 32)[:, None, None] * 8 + tl.arange(0, 8)[None, None, :]
    codes = record[None, :, None] + lane
    if ENCODING.low == 8:
        words = (tl.load(codes + part * 512), tl.load(codes + part * 512 + 256))
    else:
        low = tl.load(codes + part * ENCODING.low // 4 * 256)
        words = (low, low)
    if ENCODING.high:
        high = codes + (ENCODING.low + part * ENCODING.high // 4) * 256
        words += (tl.load(high),)
    else:
        words += (words[0],)
    row = tl.arange(0, 8)[None, :, None, None, None]
    row += tl.arange(0, 2)[None, None, None, :, None] * 8
    same = tl.arange(0, 4)[:, None, None, None, None] * 0
    header = header_of(record[None, None, :, None, None] + same, row, ENCODING)
    group = part * GROUPS + tl.arange(0, GROUPS)
    words += written(header, group, ENCODING)
    return words + (tl.load(header + (ENCODING.words - 1)),)


@triton.jit
def run_elements(
    words,
    scales,
    shifts,
    RUN: tl.constexpr,
    ENCODING: tl.constexpr,
    TILES: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """Elements of run RUN of four, [8, 4, TILES, 2, 2, 2]: g, t, tile, hc, hr, column."""
    low = words[RUN // 2] if ENCODING.low == 8 else words[0]
    code = codes_of((low, words[2]), RUN, ENCODING, DTYPE, EMULATE).to(tl.float32)
    code = tl.reshape(code, (8, 4, TILES, 2, 2, 2))
    element = code * scales[RUN // ENCODING.runs]
    if ENCODING.zero is None:
        element += shifts[RUN // ENCODING.runs]
    return element.to(DTYPE)


@triton.jit
def of_groups(factor, TILES: tl.constexpr, GROUPS: tl.constexpr):
    """Factors [4, 8, TILES, 2, GROUPS] of each group, as they multiply elements."""
    factor = tl.permute(factor, (1, 0, 2, 3, 4))
    factor = tl.reshape(factor, (8, 4, TILES, 1, 2, 1, GROUPS))
    if GROUPS == 2:
        return tl.split(factor)
    else:
        low, high = tl.split(tl.reshape(factor, (8, 4, TILES, 1, 2, 1, 2, 2)))
        first, third = tl.split(low)
        second, fourth = tl.split(high)
        return first, second, third, fourth


@triton.jit
def moved_down(words, part, WIDTH: tl.constexpr, EMULATE: tl.constexpr):
    """Words of a plane of WIDTH bits with the fields of a step's four runs lowest."""
    PARTS: tl.constexpr = 4 // WIDTH
    if PARTS <= 1:
        return words
    shift = (part % PARTS * (4 * WIDTH)).to(tl.int16)
    if EMULATE:
        return ((words.to(tl.int32) & 65535) >> shift.to(tl.int32)).to(tl.int16)
    else:
        shift = tl.broadcast_to(shift, words.shape)
        return tl.inline_asm_elementwise(
            "{ .reg .b32 s; and.b32 s, $2, 31; shr.b32 $0, $1, s; }",
            "=r,r,r",
            [words, shift],
            tl.int16,
            is_pure=True,
            pack=2,
        )


@triton.jit
def left_operand(
    words,
    step,
    ENCODING: tl.constexpr,
    TILES: tl.constexpr,
    DTYPE: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """A step's elements [16 TILES, 64], lane by lane in place."""
    GROUPS: tl.constexpr = 4 // ENCODING.runs
    OFFSET: tl.constexpr = offset_of(DTYPE, ENCODING)
    scale, shift = factors_written(words[3], words[4], words[5], ENCODING, OFFSET)
    scales = of_groups(scale, TILES, GROUPS)
    shifts = of_groups(shift, TILES, GROUPS) if ENCODING.zero is None else scales
    part = step % 4
    low = moved_down(words[0], part, ENCODING.low, EMULATE)
    high = moved_down(words[2], part, ENCODING.high, EMULATE) if ENCODING.high else low
    planes = (low, words[1], high)
    first = run_elements(planes, scales, shifts, 0, ENCODING, TILES, DTYPE, EMULATE)
    second = run_elements(planes, scales, shifts, 1, ENCODING, TILES, DTYPE, EMULATE)
    third = run_elements(planes, scales, shifts, 2, ENCODING, TILES, DTYPE, EMULATE)
    fourth = run_elements(planes, scales, shifts, 3, ENCODING, TILES, DTYPE, EMULATE)
    both = tl.join(tl.join(first, third), tl.join(second, fourth))
    # g t tile hc hr column, run // 2, run % 2
    both = tl.permute(both, (2, 4, 0, 6, 7, 3, 1, 5))
    return tl.reshape(both, (TILES * 16, 64))


@triton.jit
def settled(total):
    """`total`, for which all products that make it are waited for.

    Else Triton 3.6 lets the products of a step run on while elements of the next are made, perhaps
    in the registers that they still read: 256 rows by codes of a table were wrong (H200).
    """
    return tl.inline_asm_elementwise(
        "mov.b32 $0, $1;", "=r,r", [total], tl.float32, is_pure=True, pack=1
    )


@triton.jit(do_not_specialize=["rows", "units", "share"])
def unpacked_kernel(
    x,
    records,
    bias,
    out,
    partials,
    arrivals,
    rows,
    columns,
    units,
    share,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
    SHARED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PDL: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """Units [program * share, (program + 1) * share) of the line of all tiles' units of K."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    program = tl.program_id(0)
    tiles = tl.cdiv(rows, BLOCK_T) * tl.cdiv(columns, BLOCK_N)
    begin = program * share
    end = min(begin + share, tiles * units)
    for tile in range(begin // units, tl.cdiv(end, units)):
        row, column = tile_origin(tile, rows, columns, BLOCK_T, BLOCK_N, GROUP)
        start = tile * units
        first = max(begin - start, 0)
        last = min(end - start, units)
        total = unpacked_sum(
            x, records, rows, columns, row, column, first, last,
            K, ENCODING, BLOCK_T, BLOCK_N, EMULATE,
        )  # fmt: skip
        total, whole = gathered(
            total, partials, arrivals, program, tile, first, last, units, share,
            BLOCK_T, BLOCK_N, SHARED,
        )  # fmt: skip
        if whole:
            store_tile(
                total, None, None, bias, out, row, column, rows, columns,
                BLOCK_T, BLOCK_N, HAS_BIAS, 0, 0,
            )  # fmt: skip


@triton.jit
def unpacked_sum(
    x,
    records,
    rows,
    columns,
    row,
    column,
    first,
    last,
    K: tl.constexpr,
    ENCODING: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """W xᵀ [BLOCK_N, BLOCK_T] float32 over the units [first, last) of K, in their order."""
    TILES: tl.constexpr = BLOCK_N // 16
    UNITS: tl.constexpr = (K + 255) // 256
    DTYPE: tl.constexpr = made_in(x.dtype.element_ty, EMULATE)
    tile = tl.minimum(column // 16 + tl.arange(0, TILES), (columns + 15) // 16 - 1)
    tile_records = records + tile.to(tl.int64) * (UNITS * ENCODING.record)
    t = tl.minimum(row + tl.arange(0, BLOCK_T), rows - 1)
    rights = x + t[:, None].to(tl.int64) * (UNITS * 256) + tl.arange(0, 64)[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
    later = step_words(tile_records, first * 4, ENCODING)
    for step in tl.range(first * 4, last * 4):
        words = later
        later = step_words(tile_records, tl.minimum(step + 1, last * 4 - 1), ENCODING)
        right = tl.load(rights + step * 64).to(DTYPE)
        left = left_operand(words, step, ENCODING, TILES, DTYPE, EMULATE)
        total = tl.dot(left, right.T, total, input_precision="ieee")
        if not EMULATE:
            total = settled(total)
    return total


def unpacked_product(
    x: Tensor,
    weight: Fragments,
    bias: Tensor | None,
    workspace: Workspace,
    tiling: Tiling,
    *,
    overlapped: bool,
) -> Tensor:
    """x [T, K] Wᵀ (+ bias); a tile's depth is a unit."""
    rows, columns = len(x), weight.outputs
    out = torch.empty((rows, columns), dtype=x.dtype, device=x.device)
    units = -(-weight.inputs // UNIT)
    programs, share = shares(tiling, workspace, rows=rows, columns=columns, blocks=units)
    unpacked_kernel[(programs,)](
        ordered(x, overlapped=overlapped),
        weight.records,
        bias,
        out,
        workspace.partials,
        workspace.arrivals,
        rows,
        columns,
        units,
        share,
        K=weight.inputs,
        ENCODING=weight.encoding,
        BLOCK_T=tiling.block_t,
        BLOCK_N=tiling.block_n,
        GROUP=GROUP,
        SHARED=tiling.split != 1,
        HAS_BIAS=bias is not None,
        PDL=overlapped,
        EMULATE=interpreted(),
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
    )
    return out


def _specimen(encoding: Encoding, tiling: Tiling, *, inputs: int = 4096) -> Specimen:
    signature = {
        "x": "*bf16",
        "records": "*i16",
        "bias": "*fp32",
        "out": "*bf16",
        "partials": "*fp32",
        "arrivals": "*i32",
        **dict.fromkeys(("rows", "columns", "units", "share"), "i32"),
    }
    constants = {
        "K": inputs,
        "ENCODING": encoding,
        "BLOCK_T": tiling.block_t,
        "BLOCK_N": tiling.block_n,
        "GROUP": GROUP,
        "SHARED": tiling.split != 1,
        "HAS_BIAS": False,
        "PDL": False,
        "EMULATE": False,
    }
    pointers = ("x", "records", "bias", "out", "partials", "arrivals")
    return Specimen(
        unpacked_kernel,
        signature,
        constants,
        tiling.num_warps,
        tiling.num_stages,
        aligned=(*pointers, "columns"),
        capabilities=(90,),
    )


_TILINGS = (
    Tiling(64, 64, UNIT, num_warps=4, num_stages=3, split=0),
    Tiling(128, 64, UNIT, num_warps=4, num_stages=3, split=0),
    Tiling(256, 128, UNIT, num_warps=8, num_stages=3, split=0),
)
SPECIMENS = tuple(
    _specimen(encoding, tiling)
    for encoding in (ENCODINGS[GgmlType.Q4_K], ENCODINGS[GgmlType.Q6_K], GROUPED[0])
    for tiling in _TILINGS
)
