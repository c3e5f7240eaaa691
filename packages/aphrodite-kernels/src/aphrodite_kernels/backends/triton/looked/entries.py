# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false
"""Device functions by which lanes look up entries of eight numbers, and operands made of them.

Tensors of lanes are [32 WARPS, …], so that each lane loads its own; lane 4 g + t of a warp is for
rows g and g + 8 of an operand A, row g of inputs, and K from t on.
"""

import triton
import triton.language as tl

RUN = 8
"""Codes of a lane that lie side by side, and numbers of an entry."""


@triton.constexpr_function
def width_of(codes):
    """Numbers of a lane that lie side by side along K in operands that Triton makes of such codes.

    With another order operands would be exchanged between lanes; the numbers would be the same.
    """
    return 8 if codes == tl.uint8 else 4


@triton.jit
def across_rows(numbers, WARPS: tl.constexpr, WIDTH: tl.constexpr):
    """Of each lane 4 g + t eight numbers along K of rows g and g + 8 -> operand A [WARPS, 16, 32].

    numbers: [32 WARPS, 2, 2, 2, 2], of which the last is the row.
    """
    numbers = tl.reshape(numbers, (WARPS, 8, 4, 2, 2, 2, 2))
    if WIDTH == 4:
        numbers = tl.permute(numbers, (0, 6, 1, 3, 2, 4, 5))
    else:
        numbers = tl.permute(numbers, (0, 6, 1, 2, 3, 4, 5))
    return tl.reshape(numbers, (WARPS, 16, 32))


@triton.jit
def inputs_of(x, WARPS: tl.constexpr, WIDTH: tl.constexpr):
    """Of each lane 4 g + t eight inputs of row g [32 WARPS, 8] -> operand B [WARPS, 32, 8]."""
    x = tl.reshape(x, (WARPS, 8, 4, 2, 2, 2))
    x = tl.permute(x, (0, 3, 2, 4, 5, 1)) if WIDTH == 4 else tl.permute(x, (0, 2, 3, 4, 5, 1))
    return tl.reshape(x, (WARPS, 32, 8))


@triton.jit
def picked(codes, PLACE: tl.constexpr, COUNT: tl.constexpr):
    """Of each lane's COUNT codes [L, COUNT] that at PLACE, [L]."""
    if COUNT == 1:
        return tl.reshape(codes, (codes.shape[0],))
    else:
        even, odd = tl.split(tl.reshape(codes, (codes.shape[0], COUNT // 2, 2)))
        return picked(odd if PLACE % 2 else even, PLACE // 2, COUNT // 2)


@triton.jit
def entries_of(codes, table, PLACE: tl.constexpr, DTYPE: tl.constexpr):
    """The entries [L, 8] that codes at PLACE of [L, 8] name."""
    code = picked(codes, PLACE, 8)
    return tl.load(table + code[:, None] * 8 + tl.arange(0, 8)[None, :]).to(DTYPE)


@triton.constexpr_function
def point_assembly(*, half: bool) -> str:
    """PTX that makes the numbers $0 to $3 of a point of E8P, four times as large, of two words."""
    exponent, minus = (0x64006400, 0xE40FE40F) if half else (0x43004300, 0xC30FC30F)
    lines = [".reg .b32 w, a, s, c, d;", "xor.b32 w, $4, $5;", f"mov.b32 s, {exponent};"]
    lines += [f"mov.b32 c, {minus};", "mov.b32 d, 0x3F803F80;"]
    for pair in range(4):
        lines.append(f"shr.b32 a, w, {4 * pair - 1};" if pair else "shl.b32 a, w, 1;")
        lines.append("lop3.b32 a, a, 0x001E001E, s, 0xEA;")
        if half:
            lines.append(f"add.rn.f16x2 ${pair}, a, c;")
        else:
            lines.append(f"fma.rn.bf16x2 ${pair}, a, d, c;")
    return "{ " + " ".join(lines) + " }"


@triton.jit
def points_of(codes, words, PLACE: tl.constexpr, DTYPE: tl.constexpr, EMULATE: tl.constexpr):
    """Points of E8P, four times as large, that codes at PLACE name: [L, 2, 2, 2]."""
    code = picked(codes, PLACE, 8)
    half = tl.arange(0, 2)[None, :]
    halves = words.to(tl.pointer_type(tl.int16), bitcast=True)
    size = tl.load(halves + (code >> 8)[:, None] * 2 + half)
    sign = tl.load(halves + 512 + (code & 255)[:, None] * 2 + half)
    if EMULATE:
        word = (size ^ sign).to(tl.int32)
        first, second = (word & 15) * 2 - 15, (word >> 4 & 15) * 2 - 15
        third, fourth = (word >> 8 & 15) * 2 - 15, (word >> 12 & 15) * 2 - 15
        numbers = tl.join(tl.join(first, third), tl.join(second, fourth)).to(DTYPE)
    else:
        first, second, third, fourth = tl.inline_asm_elementwise(
            point_assembly(half=DTYPE == tl.float16),
            "=r,=r,=r,=r,r,r",
            [size, sign],
            (tl.int16, tl.int16, tl.int16, tl.int16),
            is_pure=True,
            pack=2,
        )
        numbers = tl.join(tl.join(first, third), tl.join(second, fourth)).to(DTYPE, bitcast=True)
    return tl.permute(numbers, (0, 2, 3, 1))
