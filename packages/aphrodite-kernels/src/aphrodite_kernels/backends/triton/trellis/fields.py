"""Trellises in the order in which the lanes of a warp decode them.

The symbols of a tile are numbered as tensor cores take an operand: lane t of a warp has symbols 8 t
to 8 t + 7, 2 b digits of four bits of the stream, which are its field. A record holds 16 outputs by
128 inputs, 8 tiles: of each lane the fields of all tiles one after the other, as words of 32 bits
that run from their highest bit, in blocks of four words (at the end of two and of one, if need be)
of 32 lanes. A state reaches back at most 16 bits before a field: to the end of the field of the
lane before. A field of less than four digits would be too short for that, so it has those before it
as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.trellis import TRELLIS_BLOCK, Trellis, TrellisCodebook

TILE = 16
UNIT = TRELLIS_BLOCK
"""Inputs of a record."""
_RUNS = UNIT // TILE
_LANES = 32


def field_digits(pair_bits: int) -> int:
    """Of a lane and tile."""
    return max(pair_bits, 4)


@dataclass(frozen=True, eq=False)
class TrellisFields(PackedWeight):
    """Trellises of one input, one below the other, which need not have one `suh`."""

    words: Tensor
    """[N / 16, K / 128, 32 * digits of a field] int32."""
    suh: Tensor
    """[trellises, K] float16."""
    svh: Tensor
    """[N] float16."""
    pair_bits: int
    """As of `Trellis`."""
    codebook: TrellisCodebook
    extents: tuple[int, ...]
    """Outputs of each trellis: multiples of 128, N in all."""
    picked: Tensor | None = None
    """As of `Trellis`."""
    width: int | None = None
    """As of `Trellis`."""

    @property
    def inner(self) -> int:
        """K: with inputs that only fill a block."""
        return self.suh.shape[1]

    @property
    def in_features(self) -> int:
        return self.inner if self.width is None else self.width

    @property
    def out_features(self) -> int:
        return len(self.svh if self.picked is None else self.picked)

    @property
    def nbytes(self) -> int:
        picked = 0 if self.picked is None else self.picked.nbytes
        return self.words.nbytes + self.suh.nbytes + self.svh.nbytes + picked

    @property
    def device(self) -> torch.device:
        return self.words.device

    @property
    def starts(self) -> tuple[int, ...]:
        """The first tile of each trellis."""
        return tuple(accumulate((extent // TILE for extent in self.extents[:-1]), initial=0))

    def parts(self) -> list[Trellis]:
        """The trellises as files have them; of several, none has picked rows."""
        words = torch.split(self.words, [extent // TILE for extent in self.extents])
        scales = torch.split(self.svh, list(self.extents))
        return [
            Trellis(
                stream_of(word, self.pair_bits), suh, svh, self.codebook, self.picked, self.width
            )
            for word, suh, svh in zip(words, self.suh, scales, strict=True)
        ]

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.cat([part.dequantize(dtype) for part in self.parts()])

    def rows(self, index: Tensor) -> Self:
        return self.of(self._only().rows(index))

    def shard(self, axis: int, rank: int, size: int) -> Self:
        return self.of(self._only().shard(axis, rank, size))

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.pair_bits, part.codebook, part.inner, part.width) for part in parts}
        if len(kinds) > 1 or any(part.picked is not None for part in parts):
            raise LayoutError("cannot stack trellises of different kinds, or of picked rows")
        return replace(
            parts[0],
            words=torch.cat([part.words for part in parts]),
            suh=torch.cat([part.suh for part in parts]),
            svh=torch.cat([part.svh for part in parts]),
            extents=tuple(extent for part in parts for extent in part.extents),
        )

    def to(self, device: torch.device) -> Self:
        picked = None if self.picked is None else self.picked.to(device)
        words, suh, svh = (part.to(device) for part in (self.words, self.suh, self.svh))
        return replace(self, words=words, suh=suh, svh=svh, picked=picked)

    @classmethod
    def of(cls, weight: Trellis) -> Self:
        """One trellis in this order."""
        words, extents = words_of(weight.trellis, weight.pair_bits), (len(weight.svh),)
        suh, svh, picked, width = weight.suh[None], weight.svh, weight.picked, weight.width
        return cls(words, suh, svh, weight.pair_bits, weight.codebook, extents, picked, width)

    def _only(self) -> Trellis:
        if len(self.extents) > 1:
            raise LayoutError("stacked trellises do not divide; divide them, then stack")
        return self.parts()[0]


def pack_trellis(weight: PackedWeight) -> PackedWeight:
    """A trellis in the order of lanes."""
    assert isinstance(weight, Trellis), f"bound to {type(weight).__name__}"
    return TrellisFields.of(weight)


def words_of(trellis: Tensor, pair_bits: int) -> Tensor:
    """[K / 16, N / 16, 16 b] int16, a stream a tile, as records."""
    height, width, _ = trellis.shape
    size = field_digits(pair_bits)
    octets = trellis.contiguous().view(torch.uint8).view(height, width, -1, 4).flip(3)
    digits = torch.stack((octets >> 4, octets & 15), -1)
    fields = digits.view(height, width, _LANES, pair_bits)
    if size > pair_bits:
        fields = torch.cat((fields.roll(1, 2)[..., pair_bits - size :], fields), 3)
    fields = fields.view(height // _RUNS, _RUNS, width, _LANES, size).permute(2, 0, 3, 1, 4)
    high, low = fields.reshape(width, height // _RUNS, _LANES, size, 4, 2).unbind(5)
    words = (high << 4 | low).flip(4).contiguous().view(torch.int32).squeeze(4)
    return torch.cat([each.flatten(2) for each in torch.split(words, _blocks(size), 3)], 2)


def stream_of(words: Tensor, pair_bits: int) -> Tensor:
    """`words_of`, back."""
    width, units, _ = words.shape
    size = field_digits(pair_bits)
    blocks = torch.split(words, [_LANES * block for block in _blocks(size)], 2)
    parts = [block.reshape(width, units, _LANES, -1) for block in blocks]
    octets = torch.cat(parts, 3).contiguous().view(torch.uint8)
    octets = octets.view(width, units, _LANES, size, 4).flip(4)
    digits = torch.stack((octets >> 4, octets & 15), -1)
    fields = digits.view(width, units, _LANES, _RUNS, size)[..., size - pair_bits :]
    high, low = fields.permute(1, 3, 0, 2, 4).reshape(units * _RUNS, width, -1, 4, 2).unbind(4)
    return (high << 4 | low).flip(3).contiguous().view(torch.int16).flatten(2)


def _blocks(words: int) -> list[int]:
    """Words of a lane in each block."""
    return [4] * (words // 4) + [2] * (words % 4 // 2) + [1] * (words % 2)
