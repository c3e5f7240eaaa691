"""What the bytes of a tile mean: csrc/cpu/tile_format.h, seen from Python."""

import ctypes
from ctypes import c_int32, c_uint8
from dataclasses import dataclass
from enum import IntEnum
from typing import Self


class Fields(IntEnum):
    """How the codes of a block are cut into fields of bits; the library knows more, for itself."""

    FOUR = 0
    FOUR_ONE = 1
    FOUR_TWO = 2
    TWO = 3
    TWO_ONE = 4
    EIGHT = 5
    LOOK_UP = 6


class Scales(IntEnum):
    """How scales lie; the others are those of ggml types, which the library chooses itself."""

    SINGLE_32 = 6
    SINGLE_PAIR_32 = 7
    SINGLE_16 = 8
    SINGLE_PAIR_16 = 9


class FormatArgument(ctypes.Structure):
    """A format as the compiled library takes it."""

    _fields_ = (
        ("fields", c_int32),
        ("scales", c_int32),
        ("offset_log2", c_int32),
        ("span", c_int32),
        ("table", c_uint8 * 16),
    )


@dataclass(frozen=True, slots=True)
class TileFormat:
    """The arrangement of one weight's tiles."""

    fields: int
    scales: int
    offset_log2: int
    """Of what is taken from every code; unused where there is a minimum."""
    span: int
    """Blocks or half blocks that share a scale, if scales are float32; what divides signed ones."""
    table: bytes = bytes(16)
    """The numbers that codes of a look-up stand for, plus the offset."""

    @classmethod
    def of(cls, argument: FormatArgument) -> Self:
        """The format that the library has filled in."""
        fields, scales = argument.fields, argument.scales
        return cls(fields, scales, argument.offset_log2, argument.span, bytes(argument.table))

    def argument(self) -> FormatArgument:
        """The format for the library."""
        table = (c_uint8 * 16)(*self.table)
        return FormatArgument(self.fields, self.scales, self.offset_log2, self.span, table)
