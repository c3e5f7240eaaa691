"""How weights are written for the kernels: planes of bits, a header, and what they mean.

Every ggml type, and what `coded.py` makes of other layouts, is codes q with, per group of 16 or 32
along K, a scale s and perhaps a bias b: w = s * (q - zero), s * q + b, s * table[q], or s * q where
q is the pattern of a small float. Weights lie in records of 16 rows by 256 columns
(`fragments.py`), in which a code of five bits is one plane of four and one of a single bit. Kernels
are compiled with an `Encoding` and take all in one way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.layouts.ggml.decoders.fp4 import DOUBLED
from aphrodite_kernels.layouts.ggml.decoders.grids import GRIDS

TILE = 16
"""Rows of a record."""

UNIT = 256
"""Columns of a record."""

IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

Header = Literal["half", "halves", "bytes", "signed", "nibbles", "float", "floats"]
"""What the header says of group g of G; `span` groups after another share what it says.

half     float16 scale at 2 g
halves   float16 scale and bias at 4 g
bytes    8-bit scale at g, 8-bit minimum at G + g; float16 unit of scales, and of minima, at 2 G
signed   signed 8-bit scale at g; float16 unit of scales at G
nibbles  4-bit scale and minimum at g; float16 unit of scales, and of minima, at G
float    float32 scale at 4 g / span
floats   float32 scale and bias at 8 g / span

A minimum is subtracted: the bias is minus its value times its unit.
"""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The planes and the header of one kind of weight."""

    low: int
    """Bits of a code in the first plane: 2, 4 or 8."""
    high: int
    """Bits of a code in the second plane, above those of the first: 0, 1 or 2."""
    zero: int | None
    """The code that means 0; None: groups have a bias instead."""
    group: int
    """Columns that are scaled together: 16 or 32."""
    header: Header
    words: int
    """Header of a row, in 32-bit words."""
    signed: bool = False
    """Codes are in two's complement."""
    table: tuple[float, ...] = ()
    """Of sixteen numbers, whose indices codes are; empty: codes are numbers themselves.

    Kernels round what is no integer in a signed byte to the dtype in which they multiply.
    """
    floats: tuple[int, int] | None = None
    """Codes are floats with a sign, so many bits of exponent and of mantissa; none is special.

    The bias of exponents is that of IEEE 754. None: codes are whole numbers, or indices.
    """
    span: int = 1
    """Groups that share a scale, of a unit."""
    part: float = 1.0
    """Of a `signed` scale times its unit: a power of two."""

    @property
    def runs(self) -> int:
        """Runs of 16 columns in a group."""
        return self.group // 16

    @property
    def record(self) -> int:
        """16-bit words of a record."""
        return UNIT * (self.low + self.high) + 2 * TILE * self.words


def _of_grid(kind: GgmlType, group: int) -> Encoding:
    """Coordinates of points, as numbers of a table."""
    own = GRIDS[kind]
    table = (*own.numbers, *(0,) * (16 - len(own.numbers)))
    return Encoding(4, 0, 0, group, "signed", 3 if group == 32 else 5, table=table, part=own.part)


ENCODINGS: Mapping[GgmlType, Encoding] = {
    GgmlType.Q4_0: Encoding(4, 0, 8, 32, "half", 4),
    GgmlType.Q4_1: Encoding(4, 0, None, 32, "halves", 8),
    GgmlType.Q5_0: Encoding(4, 1, 16, 32, "half", 4),
    GgmlType.Q5_1: Encoding(4, 1, None, 32, "halves", 8),
    GgmlType.Q8_0: Encoding(8, 0, 0, 32, "half", 4, signed=True),
    GgmlType.Q2_K: Encoding(2, 0, None, 16, "nibbles", 5),
    GgmlType.Q3_K: Encoding(2, 1, 4, 16, "signed", 5),
    GgmlType.Q4_K: Encoding(4, 0, None, 32, "bytes", 5),
    GgmlType.Q5_K: Encoding(4, 1, None, 32, "bytes", 5),
    GgmlType.Q6_K: Encoding(4, 2, 32, 16, "signed", 5),
    GgmlType.IQ4_NL: Encoding(4, 0, 0, 32, "half", 4, table=IQ4_VALUES),
    GgmlType.IQ4_XS: Encoding(4, 0, 0, 32, "signed", 3, table=IQ4_VALUES),
    GgmlType.TQ1_0: Encoding(2, 0, 1, 32, "float", 1, span=8),
    GgmlType.TQ2_0: Encoding(2, 0, 1, 32, "float", 1, span=8),
    GgmlType.Q1_0: Encoding(2, 0, 1, 32, "float", 2, span=4),
    GgmlType.MXFP4: Encoding(4, 0, 0, 32, "float", 8, table=DOUBLED),
    GgmlType.NVFP4: Encoding(4, 0, 0, 16, "float", 16, table=DOUBLED),
    GgmlType.IQ1_S: _of_grid(GgmlType.IQ1_S, 32),
    GgmlType.IQ1_M: _of_grid(GgmlType.IQ1_M, 16),
    GgmlType.IQ2_XXS: _of_grid(GgmlType.IQ2_XXS, 32),
    GgmlType.IQ2_XS: _of_grid(GgmlType.IQ2_XS, 16),
    GgmlType.IQ2_S: _of_grid(GgmlType.IQ2_S, 16),
    GgmlType.IQ3_XXS: _of_grid(GgmlType.IQ3_XXS, 32),
    GgmlType.IQ3_S: _of_grid(GgmlType.IQ3_S, 32),
}
"""Bits per weight in memory: those of the file, up to 0.19 more (Q3_K) for whole header words.
Points of grids become coordinates of four bits, and scales that are no float16 become float32.
"""

GROUPED = (
    Encoding(4, 0, 8, 32, "float", 2, span=4),
    Encoding(4, 0, None, 32, "floats", 4, span=4),
    Encoding(8, 0, None, 32, "floats", 4, signed=True, span=4),
    Encoding(4, 0, 0, 32, "float", 4, table=tuple(code / 7.5 - 1 for code in range(16)), span=2),
    Encoding(8, 0, 0, 32, "float", 8, floats=(4, 3)),
    Encoding(4, 2, 0, 32, "float", 8, floats=(3, 2)),
)
"""What `coded.py` makes of the usual groups of four and eight bits, of a table, and of floats of
eight and six bits.
"""
