# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false
"""What the lanes of a warp hold of records, inputs and sums, as operands of tensor cores.

Every shape is such that an operand lies where its parts were loaded: nothing moves between lanes.
"""

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.ggml.arrange import ARRANGED
from aphrodite_kernels.backends.triton.ggml.decode import header_of

ARRANGED_UNIT = tl.constexpr(ARRANGED)


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
def prefetch(tile_records, unit, UNITS: tl.constexpr, ENCODING: tl.constexpr):
    """Ask for unit `unit` of each warp to be brought into L2, a line of 128 bytes per lane."""
    record = tile_records + tl.minimum(unit, UNITS - 1)[:, None] * ENCODING.record
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
def loads_end_here(turn, FENCED: tl.constexpr):
    """If FENCED, the assembler does not move loads from above down to where they are used."""
    if FENCED:
        tl.inline_asm_elementwise(
            "bar.warp.sync 0xffffffff; mov.b32 $0, 0;",
            "=r,r",
            [turn],
            tl.int32,
            is_pure=False,
            pack=1,
        )


@triton.jit
def input_pointers(x, first_row, units, EIGHTS: tl.constexpr):
    """To what each lane multiplies in the first two runs of arranged x, [32, 1, EIGHTS, 8]."""
    lane = tl.arange(0, 32)[:, None, None, None]
    eight = first_row // 8 + tl.arange(0, EIGHTS)[None, None, :, None]
    column = tl.arange(0, 8)[None, None, None, :]
    return x + eight * (units * ARRANGED_UNIT) + lane * 8 + column


@triton.jit
def input_pair(inputs, PAIR: tl.constexpr, EIGHTS: tl.constexpr):
    """What each lane multiplies in runs 2 PAIR and 2 PAIR + 1, [32, WARPS, EIGHTS, 4] each."""
    both = tl.load(inputs + PAIR * (ARRANGED_UNIT // 8))
    both = tl.reshape(both, (32, both.shape[1], EIGHTS, 2, 4))
    return tl.split(tl.permute(both, (0, 1, 2, 4, 3)))


@triton.jit
def sum_pointers(sums, first_row, units, EIGHTS: tl.constexpr, ENCODING: tl.constexpr):
    """To the sums of the first group of the first unit for each lane, [32, 1, EIGHTS, 2]."""
    eight = first_row // 8 + tl.arange(0, EIGHTS)[None, None, :, None]
    row = tl.arange(0, 32)[:, None, None, None] % 4 * 2 + tl.arange(0, 2)[None, None, None, :]
    return sums + eight * (units * (8 * 16 // ENCODING.runs)) + row
