# pyright: basic
"""PTX that makes a pair of codes in half precision out of the words of a plane.

Bits put under the exponent of 128 (bfloat16) or 1024 (float16) are that number plus the code: no
conversion is needed, and both formats hold every code exactly. Under `lop3`, 0x6A is (a & b) ^ c
and 0xEA is (a & b) | c.
"""

import triton

from aphrodite_kernels.backends.triton.ggml.encoding import Encoding


@triton.constexpr_function
def code_assembly(run: int, encoding: Encoding, *, half: bool) -> str:
    """PTX that takes the codes of a run (0 to 15) out of two words ($1, and $2 of high bits).

    A word holds the words of two columns; the result is the pair of their codes, in float16 (half)
    or bfloat16.
    """
    low, high = encoding.low, encoding.high
    exponent = 0x64006400 if half else 0x43004300
    lines = [".reg .b32 a, b, c, d, e, f, g, h, s;", f"mov.b32 s, {exponent};"]
    if encoding.table:
        values = _whole_values if are_whole(encoding.table) else _values
        lines += values(run % 4, encoding.table, half=half)
    elif encoding.signed:
        lines += [f"shr.b32 a, $1, {8 * (run % 2)};", *_from_bytes(half=half)]
    elif encoding.floats:
        lines += [f"shr.b32 a, $1, {low * (run % (16 // low))};"]
        if high:
            lines.append(f"and.b32 a, a, {((1 << low) - 1) * 0x00010001};")
            lines += _high_bits(high * (run % (16 // high)) - low, ((1 << high) - 1) << low)
        lines += _from_floats(*encoding.floats, half=half)
    else:
        shift, mask = low * (run % (16 // low)), ((1 << low) - 1) * 0x00010001
        lines += [f"shr.b32 a, $1, {shift};", f"lop3.b32 a, a, {mask}, s, 0x6A;"]
        if high:
            lines += _high_bits(high * (run % (16 // high)) - low, ((1 << high) - 1) << low)
        if encoding.zero is None:
            lines.append("mov.b32 $0, a;")
        else:
            lines += _minus((1024 if half else 128) + encoding.zero, half=half)
    return "{ " + " ".join(lines) + " }"


@triton.constexpr_function
def _high_bits(shift: int, mask: int) -> list[str]:
    """Bits of $2, moved down by `shift`, put into a."""
    move = f"shr.b32 b, $2, {shift};" if shift >= 0 else f"shl.b32 b, $2, {-shift};"
    return [move, f"mov.b32 c, {mask * 0x00010001};", "lop3.b32 a, b, c, a, 0xEA;"]


@triton.constexpr_function
def _minus(value: int, *, half: bool) -> list[str]:
    """$0 = a - value, for the pair."""
    bits = _negative(value, half=half) * 0x00010001
    if half:
        return [f"mov.b32 c, {bits};", "add.rn.f16x2 $0, a, c;"]
    return [f"mov.b32 c, {bits};", "mov.b32 d, 0x3F803F80;", "fma.rn.bf16x2 $0, a, d, c;"]


@triton.constexpr_function
def _from_bytes(*, half: bool) -> list[str]:
    """$0 = the signed bytes 0 and 2 of a. In bfloat16 a byte is its 7 low bits minus the eighth."""
    if half:
        return [
            "lop3.b32 a, a, 0x00FF00FF, 0x64806480, 0x6A;",
            *_minus(1024 + 128, half=half),
        ]
    return [
        "lop3.b32 b, a, 0x007F007F, s, 0x6A;",
        "lop3.b32 c, a, 0x00800080, s, 0x6A;",
        "mov.b32 d, 0xBF80BF80;",
        "fma.rn.bf16x2 $0, c, d, b;",
    ]


@triton.constexpr_function
def _from_floats(exponent: int, mantissa: int, *, half: bool) -> list[str]:
    """$0 = the small floats in the lowest bits of both halves of a.

    Their bits, put where the larger format has its own, are the number but for a power of two: the
    difference of both biases. Subnormal numbers, too.
    """
    wide, bias = (10, 15) if half else (7, 127)
    own = exponent + mantissa
    shift = bias - (2 ** (exponent - 1) - 1)
    pattern = (bias + shift << wide) * 0x00010001
    lines = [
        f"shl.b32 b, a, {wide - mantissa};",
        f"and.b32 b, b, {((1 << own) - 1 << wide - mantissa) * 0x00010001};",
        f"shl.b32 a, a, {15 - own};",
        "lop3.b32 a, a, 0x80008000, b, 0xEA;",
        f"mov.b32 c, {pattern};",
    ]
    if half:
        return [*lines, "mul.rn.f16x2 $0, a, c;"]
    return [*lines, "mov.b32 d, 0x80008000;", "fma.rn.bf16x2 $0, a, c, d;"]


@triton.constexpr_function
def _look_up(table: tuple[int, ...], targets: tuple[str, str]) -> list[str]:
    """Four bytes each in `targets`: what a table of bytes has for the nibbles of the lower and of
    the upper half of $1.

    A byte permutation looks up four nibbles in eight bytes: one for the values of codes below 8,
    one for the others, a third picks. ptxas sees that all of it repeats from run to run.
    """
    quads = [
        sum((value & 255) << 8 * i for i, value in enumerate(table[start : start + 4]))
        for start in (0, 4, 8, 12)
    ]
    lines = ["and.b32 a, $1, 0x77777777;", "shr.b32 b, $1, 1;"]
    lines += ["mov.b32 c, 0x32103210;", "lop3.b32 b, b, 0x44444444, c, 0xEA;"]
    for target in targets:
        lines += [f"mov.b32 c, {quads[0]};", f"prmt.b32 d, c, {quads[1]}, a;"]
        lines += [f"mov.b32 c, {quads[2]};", f"prmt.b32 c, c, {quads[3]}, a;"]
        lines += [f"prmt.b32 {target}, d, c, b;"]
        if target == targets[0]:
            lines += ["shr.b32 a, a, 16;", "shr.b32 b, b, 16;"]
    return lines


@triton.constexpr_function
def are_whole(table: tuple[float, ...]) -> bool:
    """Whether numbers are integers in a signed byte, or there are none."""
    return all(value == int(value) and -128 <= value < 128 for value in table)


@triton.constexpr_function
def _whole_values(index: int, table: tuple[float, ...], *, half: bool) -> list[str]:
    """$0 = integers of a table for nibble `index` of both halves of $1."""
    low, high = index, index + 4
    return [
        *_look_up(tuple(map(int, table)), ("e", "f")),
        f"prmt.b32 a, e, f, {low | low << 4 | high << 8 | high << 12};",
        *_from_bytes(half=half),
    ]


@triton.constexpr_function
def _values(index: int, table: tuple[float, ...], *, half: bool) -> list[str]:
    """$0 = numbers of a table, rounded to the format, for nibble `index` of both halves of $1."""
    bits = [_bits_of(value, half=half) for value in table]
    both = index | (index + 4) << 4
    return [
        *_look_up(tuple(value & 255 for value in bits), ("e", "f")),
        *_look_up(tuple(value >> 8 for value in bits), ("g", "h")),
        f"prmt.b32 a, e, g, {both};",
        f"prmt.b32 b, f, h, {both};",
        f"prmt.b32 $0, a, b, {0x5410};",
    ]


@triton.constexpr_function
def _bits_of(value: float, *, half: bool) -> int:
    """The pattern of float16, or of bfloat16, nearest to a number up to 65504; ties go to even."""
    mantissa, bias = (10, 15) if half else (7, 127)
    exponent = 1 - bias
    while abs(value) >= 2.0 ** (exponent + 1):
        exponent += 1
    steps = round(abs(value) * 2.0 ** (mantissa - exponent))
    pattern = steps + (exponent + bias - 1 << mantissa)
    return pattern | 0x8000 if value < 0 else pattern


@triton.constexpr_function
def _negative(value: int, *, half: bool) -> int:
    """Minus an integer from 1 to 255 as bfloat16, to 2047 as float16."""
    exponent = value.bit_length() - 1
    if half:
        return 0x8000 | (15 + exponent) << 10 | value << (10 - exponent) & 1023
    return 0x8000 | (127 + exponent) << 7 | value << (7 - exponent) & 127
