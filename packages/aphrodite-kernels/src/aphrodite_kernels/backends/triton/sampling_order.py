# pyright: basic
"""Float32 numbers as int32 that are ordered alike."""

import triton
import triton.language as tl

INFINITE = tl.constexpr(0x7F800000)
"""The order of infinity; those of NaNs, of either sign, are beyond it or below LOWEST."""
LOWEST = tl.constexpr(-0x7F800001)
"""The order of minus infinity."""


@triton.jit
def order_of(value):
    """Of float32 numbers other than -0, which is below 0 here."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of(order):
    """The number that has this order."""
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
