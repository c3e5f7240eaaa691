"""Names and sizes of the ggml tensor types; knows nothing of their contents."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Self


class GgmlType(IntEnum):
    """Id of a tensor type, with its elements and bytes per block.

    Ids 4, 5, 31 to 33 and 36 to 38 belonged to types that ggml removed.
    """

    block_size: int
    """Elements per block, along K."""
    block_bytes: int
    """Bytes per block."""

    def __new__(cls, identifier: int, block_size: int, block_bytes: int) -> Self:
        member = int.__new__(cls, identifier)
        member._value_ = identifier
        member.block_size = block_size
        member.block_bytes = block_bytes
        return member

    F32 = 0, 1, 4
    F16 = 1, 1, 2
    Q4_0 = 2, 32, 18
    Q4_1 = 3, 32, 20
    Q5_0 = 6, 32, 22
    Q5_1 = 7, 32, 24
    Q8_0 = 8, 32, 34
    Q8_1 = 9, 32, 40
    Q2_K = 10, 256, 84
    Q3_K = 11, 256, 110
    Q4_K = 12, 256, 144
    Q5_K = 13, 256, 176
    Q6_K = 14, 256, 210
    Q8_K = 15, 256, 292
    IQ2_XXS = 16, 256, 66
    IQ2_XS = 17, 256, 74
    IQ3_XXS = 18, 256, 98
    IQ1_S = 19, 256, 50
    IQ4_NL = 20, 32, 18
    IQ3_S = 21, 256, 110
    IQ2_S = 22, 256, 82
    IQ4_XS = 23, 256, 136
    I8 = 24, 1, 1
    I16 = 25, 1, 2
    I32 = 26, 1, 4
    I64 = 27, 1, 8
    F64 = 28, 1, 8
    IQ1_M = 29, 256, 56
    BF16 = 30, 1, 2
    TQ1_0 = 34, 256, 54
    TQ2_0 = 35, 256, 66
    MXFP4 = 39, 32, 17
    NVFP4 = 40, 64, 36
    Q1_0 = 41, 128, 18


_REMOVED: Mapping[int, str] = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}


def unknown_type(identifier: int) -> str:
    """What an id that is no GgmlType was, and what to do about it."""
    if identifier in _REMOVED:
        also = ", or I2_S of bitnet.cpp" if identifier == 36 else ""
        return (
            f"ggml type id {identifier}, {_REMOVED[identifier]}, which ggml removed{also}; "
            "convert the original model with a present llama.cpp"
        )
    return (
        f"unknown ggml type id {identifier}, perhaps of a fork such as ik_llama.cpp or bitnet.cpp; "
        f"quantise the original model with llama.cpp, whose ids end at {max(GgmlType).value}"
    )
