# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportAssignmentType=false
"""Device functions that find the states of a record's weights and compute what they stand for.

Every position and shift is known when a kernel is compiled. Codebooks are inline assembly, two
weights at a time in half precision; EMULATE computes the same by plain arithmetic, for tests.
"""

import triton
import triton.language as tl

from aphrodite_kernels.layouts.trellis import TrellisCodebook

_MULTIPLIERS = {
    TrellisCodebook.INST3.value: 89226354,
    TrellisCodebook.MCG.value: 0xCBAC1FED,
    TrellisCodebook.MUL1.value: 0x83DCD12D,
}
_ADDED = 64248484
"""By 3inst, after its product."""
MASK = tl.constexpr(0x8FFF8FFF)
FLIPPED = tl.constexpr(0x3B603B60)


@triton.constexpr_function
def field_of(pair_bits):
    """Bits of a field; `fields.py` has it for tensors, in digits of four."""
    return max(4 * pair_bits, 16)


@triton.constexpr_function
def multiplier_of(book):
    """Of a codebook."""
    return _MULTIPLIERS[book]


@triton.constexpr_function
def added_of(book):
    """What a codebook adds to the product."""
    return _ADDED if book == "3inst" else 0


@triton.constexpr_function
def book_assembly(book: str) -> str:
    """PTX that computes a pair of float16 from states $1 and $2."""
    multiplier, added = _MULTIPLIERS[book], _ADDED if book == "3inst" else 0
    lines = [
        f"mad.lo.u32 {to}, {of}, {multiplier}, {added};" for to, of in (("a", "$1"), ("b", "$2"))
    ]
    if book == "mul1":
        # 1024 plus the sum of the bytes, as the pattern of a float16.
        lines += [
            "mov.b32 c, 0x01010101;",
            "mov.b32 d, 0x6400;",
            "dp4a.u32.u32 a, a, c, d;",
            "dp4a.u32.u32 b, b, c, d;",
            "prmt.b32 a, a, b, 0x5410;",
            "mov.b32 c, 0x1EEE1EEE;",
            "mov.b32 d, 0xC931C931;",
            "fma.rn.f16x2 $0, a, c, d;",
        ]
    else:
        lines += [
            "mov.b32 c, 0x8FFF8FFF;",
            "mov.b32 d, 0x3B603B60;",
            "lop3.b32 a, a, c, d, 0x6A;",  # (a & c) ^ d
            "lop3.b32 b, b, c, d, 0x6A;",
            "prmt.b32 c, a, b, 0x5410;",
            "prmt.b32 d, a, b, 0x7632;",
            "add.rn.f16x2 $0, c, d;",
        ]
    return "{ .reg .b32 a, b, c, d; " + " ".join(lines) + " }"


@triton.jit
def numbers_of(states, BOOK: tl.constexpr, EMULATE: tl.constexpr):
    """float16 from states (uint32, any shape)."""
    if EMULATE:
        mixed = states * multiplier_of(BOOK) + added_of(BOOK)
        if BOOK == "mul1":
            total = (mixed & 255) + (mixed >> 8 & 255) + (mixed >> 16 & 255) + (mixed >> 24)
            wide = (total + 1024).to(tl.float32) * (887 / 131072) - 1329 / 128
            return wide.to(tl.float16)
        mixed = (mixed & MASK) ^ FLIPPED
        low = mixed.to(tl.uint16).to(tl.float16, bitcast=True)
        high = (mixed >> 16).to(tl.uint16).to(tl.float16, bitcast=True)
        return low + high
    else:
        assembly: tl.constexpr = book_assembly(BOOK)
        pair = tl.inline_asm_elementwise(
            assembly, "=r,r,r", [states], tl.int16, is_pure=True, pack=2
        )
        return pair.to(tl.float16, bitcast=True)


@triton.jit
def loaded(records, lane, PAIR_BITS: tl.constexpr):
    """Words of records [WARPS, TILES], of `lane` [32]: each [32, WARPS, TILES], uint32."""
    COUNT: tl.constexpr = field_of(PAIR_BITS) // 4
    words = ()
    for block in tl.static_range(COUNT // 4):
        words += _four(records[None, :, :] + block * 128, lane)
    if COUNT % 4 >= 2:
        words += _two(records[None, :, :] + COUNT // 4 * 128, lane)
    if COUNT % 2:
        words += _one(records[None, :, :] + (COUNT - 1) * 32, lane)
    return words


@triton.jit
def _four(block, lane):
    place = block[:, :, :, None] + lane[:, None, None, None] * 4 + tl.arange(0, 4)
    words = tl.load(place).to(tl.uint32, bitcast=True)
    SHAPE: tl.constexpr = (words.shape[0], words.shape[1], words.shape[2], 2, 2)
    even, odd = tl.split(tl.reshape(words, SHAPE))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _two(block, lane):
    place = block[:, :, :, None] + lane[:, None, None, None] * 2 + tl.arange(0, 2)
    return tl.split(tl.load(place).to(tl.uint32, bitcast=True))


@triton.jit
def _one(block, lane):
    return (tl.load(block + lane[:, None, None]).to(tl.uint32, bitcast=True),)


@triton.jit
def sixteen(words, START: tl.constexpr):
    """The 16 bits from START on of a string of words, and what is left of them in higher bits.

    Beyond the last word the string goes on with anything.
    """
    WORD: tl.constexpr = START // 32
    OFFSET: tl.constexpr = START % 32
    if OFFSET <= 16:
        return words[WORD] >> (16 - OFFSET)
    elif WORD + 1 == len(words):
        return words[WORD] << (OFFSET - 16)
    else:
        return (words[WORD] << (OFFSET - 16)) | (words[WORD + 1] >> (48 - OFFSET))


@triton.constexpr_function
def _bytes_assembly(first: int) -> str:
    """PTX that takes two bytes of $1, from the lowest but `first` on."""
    return f"prmt.b32 $0, $1, 0, {0x4400 | (first + 1) << 4 | first};"


@triton.jit
def lowest(word, SHIFT: tl.constexpr, EMULATE: tl.constexpr):
    """The 16 bits of a word above its SHIFT lowest: a shift, which others share, and its bytes."""
    if EMULATE:
        return word >> SHIFT & 65535
    else:
        assembly: tl.constexpr = _bytes_assembly(SHIFT // 8)
        return tl.inline_asm_elementwise(
            assembly, "=r,r", [word >> (SHIFT % 8)], tl.uint32, is_pure=True, pack=1
        )


@triton.jit
def state_of(
    own,
    before,
    RUN: tl.constexpr,
    SYMBOL: tl.constexpr,
    PAIR_BITS: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """The state of symbol SYMBOL of eight in the fields of tile RUN, of a lane and the one before.

    It is the 16 bits that end with the symbol's own, of which the field has END.
    """
    FIELD: tl.constexpr = field_of(PAIR_BITS)
    FIRST: tl.constexpr = FIELD * (RUN + 1) - 4 * PAIR_BITS
    END: tl.constexpr = (SYMBOL + 1) * PAIR_BITS // 2
    START: tl.constexpr = FIRST + END - 16
    if END >= 16 and START % 32 <= 16:
        return lowest(own[START // 32], 16 - START % 32, EMULATE)
    elif END >= 16:
        return lowest(sixteen(own, START), 0, EMULATE)
    else:
        joint = sixteen(before, FIELD * (RUN + 1) - 16) << 16 | (sixteen(own, FIRST) & 65535)
        return lowest(joint, 16 - END, EMULATE)


@triton.jit
def _rows_and_columns(
    own,
    before,
    RUN: tl.constexpr,
    HALF: tl.constexpr,
    PAIR_BITS: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """States of the symbols 4 hr + 2 hc + HALF, [..., hr, hc]."""
    near = tl.join(
        state_of(own, before, RUN, HALF, PAIR_BITS, EMULATE),
        state_of(own, before, RUN, 4 + HALF, PAIR_BITS, EMULATE),
    )
    far = tl.join(
        state_of(own, before, RUN, 2 + HALF, PAIR_BITS, EMULATE),
        state_of(own, before, RUN, 6 + HALF, PAIR_BITS, EMULATE),
    )
    return tl.join(near, far)


@triton.jit
def pair_numbers(
    own,
    before,
    PAIR: tl.constexpr,
    PAIR_BITS: tl.constexpr,
    BOOK: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """float16 of tiles 2 PAIR and 2 PAIR + 1, [32, WARPS, TILES, 2, 2, 2, 2]: hr, hc, tile, half.

    The weight at output 8 hr + lane // 4 and input 16 tile + 8 hc + 2 (lane % 4) + half.
    """
    first = tl.join(
        _rows_and_columns(own, before, 2 * PAIR, 0, PAIR_BITS, EMULATE),
        _rows_and_columns(own, before, 2 * PAIR + 1, 0, PAIR_BITS, EMULATE),
    )
    second = tl.join(
        _rows_and_columns(own, before, 2 * PAIR, 1, PAIR_BITS, EMULATE),
        _rows_and_columns(own, before, 2 * PAIR + 1, 1, PAIR_BITS, EMULATE),
    )
    return numbers_of(tl.join(first, second), BOOK, EMULATE)
