# pyright: basic
# pyright: reportArgumentType=false
"""Numbers of eight bits to float16, four of a thread's word at a time.

A conversion that follows the words of memory costs an instruction for two numbers. Triton would
move its own behind the change of order that tensor cores ask for, and take single bytes apart.
"""

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.attention_tile import widened
from aphrodite_kernels.backends.triton.device import interpreted

_EMULATE = tl.constexpr(interpreted())
"""The interpreter knows no assembly."""
_FROM_FLOATS = (
    ".reg .b16 low, high; mov.b32 {low, high}, $2;"
    "cvt.rn.f16x2.e4m3x2 $0, low; cvt.rn.f16x2.e4m3x2 $1, high;"
)
_FROM_INTEGERS = (
    ".reg .b32 word, thousand, offset;"
    "xor.b32 word, $2, 0x80808080;"
    "mov.b32 thousand, 0x64646464;"  # the high byte of 1024
    "mov.b32 offset, 0x64806480;"  # 1152
    "prmt.b32 $0, word, thousand, 0x4140; prmt.b32 $1, word, thousand, 0x4342;"
    "sub.rn.f16x2 $0, $0, offset; sub.rn.f16x2 $1, $1, offset;"
)
_FROM_LONG_EXPONENTS = "prmt.b32 $0, $2, 0, 0x1404; prmt.b32 $1, $2, 0, 0x3424;"


@triton.constexpr_function
def conversion(dtype) -> str:
    """PTX from four numbers ($2) to two pairs ($0, $1).

    float8_e5m2 is the high byte of a float16. An integer plus 128 is the low byte of 1024 plus it.
    """
    kinds = {"fp8e4nv": _FROM_FLOATS, "fp8e5": _FROM_LONG_EXPONENTS}
    return "{ " + kinds.get(dtype.name, _FROM_INTEGERS) + " }"


@triton.jit
def float16_of(numbers):
    """The same in float16, exact."""
    if _EMULATE:
        return widened(numbers, tl.float16)
    else:
        assembly: tl.constexpr = conversion(numbers.dtype)
        bits = tl.inline_asm_elementwise(
            assembly,
            "=&r,=&r,r",
            [numbers],
            tl.int16,
            is_pure=True,
            pack=4,
        )
        return bits.to(tl.float16, bitcast=True)
