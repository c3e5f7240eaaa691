"""Blocks of 256 whose codes are indices of points of a grid: of eight dimensions or of four.

The coordinates of IQ2 and IQ3 are positive and have signs of their own, eight to a byte; of seven
stored ones the eighth makes their number even. Those of IQ1 have none, but all of a run are moved
by an eighth up or down. With that above the place of a coordinate among the grid's numbers, an
element is a code of three bits (IQ3: four) under a scale.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import constant, half, interleaved, multiplied, words
from aphrodite_kernels.layouts.ggml.grids import grid_codes
from aphrodite_kernels.layouts.ggml.types import GgmlType

_EVEN = tuple(seven | (seven.bit_count() & 1) << 7 for seven in range(128))


@dataclass(frozen=True, slots=True)
class Read:
    """Fields of blocks: an element is unit * factor * part * (what its code stands for)."""

    unit: Tensor
    """[n, 1] float32: a float16."""
    factors: Tensor
    """[n, s] int32, 1 to 31."""
    index: Tensor
    """[n, m] int32: points of the grid."""
    above: Tensor
    """[n, 256] int32: 1 for what is negative, or moved down."""


def iq2_xxs(blocks: Tensor) -> Read:
    """scale; per 32: four indices, then a word of four times seven signs and a 4-bit scale."""
    word = words(blocks, 2, 66, torch.int32)[:, 1::2]
    index = blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4].flatten(1).int()
    return Read(half(blocks, 0), _odd(word >> 28 & 15), index, _bits(_even(word)))


def iq2_xs(blocks: Tensor) -> Read:
    """scale, 32 words of a 9-bit index and seven signs, 16 scales of 4 bits."""
    codes = words(blocks, 2, 66, torch.int16)
    signs = constant(_EVEN, torch.uint8, blocks.device)[codes >> 9]
    return Read(half(blocks, 0), _odd(_nibbles(blocks[:, 66:])), codes & 511, _bits(signs))


def iq2_s(blocks: Tensor) -> Read:
    """scale, 32 low bytes of indices, 32 bytes of signs, 32 high pairs, 16 scales of 4 bits."""
    index = blocks[:, 2:34].int() | interleaved(blocks[:, 66:74], (0, 2, 4, 6), 3).int() << 8
    factors = _odd(_nibbles(blocks[:, 74:]))
    return Read(half(blocks, 0), factors, index, _bits(blocks[:, 34:66]))


def iq3_xxs(blocks: Tensor) -> Read:
    """scale, 64 indices; per 32: a word of four times seven signs and a 4-bit scale."""
    word = words(blocks, 66, 98, torch.int32)
    index = blocks[:, 2:66].int()
    return Read(half(blocks, 0), _odd(word >> 28 & 15), index, _bits(_even(word)))


def iq3_s(blocks: Tensor) -> Read:
    """scale, 64 low bytes of indices, 64 high bits, 32 bytes of signs, 8 scales of 4 bits."""
    index = blocks[:, 2:66].int() | interleaved(blocks[:, 66:74], range(8), 1).int() << 8
    factors = _odd(_nibbles(blocks[:, 106:110]))
    return Read(half(blocks, 0), factors, index, _bits(blocks[:, 74:106]))


def iq1_s(blocks: Tensor) -> Read:
    """scale, 32 low bytes of indices; per 32: four high bits of three, a 3-bit scale, a sign."""
    high = words(blocks, 34, 50, torch.int16)
    index = blocks[:, 2:34].int() | interleaved(high, (0, 3, 6, 9), 7) << 8
    down = (high >> 15).repeat_interleave(32, 1)
    return Read(half(blocks, 0), _odd(high >> 12 & 7), index, down)


def iq1_m(blocks: Tensor) -> Read:
    """32 low bytes of indices, 32 nibbles of three high bits and a sign, 16 scales of 3 bits.

    The scale of all is in the four top nibbles of the words of scales, the lowest first.
    """
    word = words(blocks, 48, 56, torch.int16)
    top = constant((0, 4, 8, 12), torch.int32, blocks.device)
    unit = (word >> 12 << top).sum(1, keepdim=True).to(torch.int16).view(torch.float16).float()
    nibbles = _nibbles(blocks[:, 32:48])
    index = blocks[:, :32].int() | (nibbles & 7) << 8
    down = (nibbles >> 3).repeat_interleave(8, 1)
    return Read(unit, _odd(interleaved(word, (0, 3, 6, 9), 7)), index, down)


def _nibbles(data: Tensor) -> Tensor:
    return interleaved(data, (0, 4), 15).int()


def _odd(scales: Tensor) -> Tensor:
    return 2 * scales + 1


def _bits(signs: Tensor) -> Tensor:
    """Bytes [n, m] -> [n, 8 m]."""
    return interleaved(signs, range(8), 1).int()


def _even(word: Tensor) -> Tensor:
    """Words [n, m] -> bytes of signs [n, 4 m]."""
    sevens = interleaved(word, (0, 7, 14, 21), 127)
    return constant(_EVEN, torch.uint8, word.device)[sevens]


@dataclass(frozen=True, slots=True)
class Grid:
    """A type whose codes are points of a grid."""

    read: Callable[[Tensor], Read]
    numbers: tuple[int, ...]
    """What codes stand for."""
    part: float
    """Of a unit's product with a factor: a power of two."""

    def codes(self, blocks: Tensor, kind: GgmlType) -> tuple[Read, Tensor]:
        """The fields, and codes [n, 256] uint8."""
        read = self.read(blocks)
        points = grid_codes(kind, blocks.device)
        assert points is not None, f"{kind.name} has no grid"
        above = len(self.numbers).bit_length() - 2
        return read, points[read.index].flatten(1) | (read.above << above).to(torch.uint8)


def _signed(*places: int) -> tuple[int, ...]:
    """Numbers, then the same below zero."""
    return (*places, *(-place for place in places))


_IQ1, _IQ2 = (-7, 1, 9, 0, -9, -1, 7, 0), _signed(8, 25, 43, 0)
_IQ3_XXS, _IQ3_S = _signed(4, 12, 20, 28, 36, 44, 52, 62), _signed(*range(1, 16, 2))
GRIDS: Mapping[GgmlType, Grid] = {
    GgmlType.IQ2_XXS: Grid(iq2_xxs, _IQ2, 1 / 8),
    GgmlType.IQ2_XS: Grid(iq2_xs, _IQ2, 1 / 8),
    GgmlType.IQ2_S: Grid(iq2_s, _IQ2, 1 / 8),
    GgmlType.IQ3_XXS: Grid(iq3_xxs, _IQ3_XXS, 1 / 4),
    GgmlType.IQ3_S: Grid(iq3_s, _IQ3_S, 1.0),
    GgmlType.IQ1_S: Grid(iq1_s, _IQ1, 1 / 8),
    GgmlType.IQ1_M: Grid(iq1_m, _IQ1, 1 / 8),
}


def _factors(kind: GgmlType) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def factors(blocks: Tensor) -> tuple[Tensor, Tensor]:
        own = GRIDS[kind]
        read, codes = own.codes(blocks, kind)
        numbers = constant(own.numbers, torch.float32, blocks.device)[codes.int()]
        scales = read.unit * (read.factors.float() * own.part)
        return scales, numbers.view(*scales.shape, -1)

    return factors


DECODERS = {kind: multiplied(_factors(kind)) for kind in GRIDS}
