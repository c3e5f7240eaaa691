"""Trellis-coded weights (EXL3): one to eight bits each, between two Hadamard transforms.

A tile of 16 x 16 weights is a ring of 256 b bits; the state of each weight is the 16 bits that
end with its own b, and a codebook computes the number from the state. With one codebook b is also
1.5, 2.5 or 3.5: every other weight has one bit more than the one before. W is the decoded matrix,
turned by an orthonormal 128-point Hadamard transform along either axis and scaled per channel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from itertools import accumulate
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.hadamard import sylvester

TRELLIS_BLOCK = 128
"""Channels that one transform mixes; both dimensions are multiples of it."""
TRELLIS_HALVES = (16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128)
"""Words of 16 bits that a tile of 256 weights may have."""
_TILE = 16
_DECODED_AT_ONCE = 1 << 21


class TrellisCodebook(StrEnum):
    """How a number is computed from 16 bits."""

    INST3 = "3inst"
    MCG = "mcg"
    MUL1 = "mul1"


@dataclass(frozen=True, eq=False)
class Trellis(PackedWeight):
    """W = diag(svh) H D H diag(suh), or rows of it; D [N, K] is decoded from the trellis."""

    trellis: Tensor
    """[K / 16, N / 16, 16 b] int16; words of 32 bits, low half first, read from their highest."""
    suh: Tensor
    """[K] float16."""
    svh: Tensor
    """[N] float16."""
    codebook: TrellisCodebook
    picked: Tensor | None = None
    """[R] int64: the rows of W that the weight consists of; None: all."""
    width: int | None = None
    """The columns of W that the weight consists of, from the first one; None: all."""

    def __post_init__(self) -> None:
        shape = tuple(self.trellis.shape)
        if self.trellis.dtype != torch.int16 or len(shape) != 3 or shape[2] not in TRELLIS_HALVES:
            raise LayoutError(
                "a trellis is [K / 16, N / 16, 16 b] int16 with b from 1 to 8, 1.5, 2.5 or 3.5, "
                f"not {list(shape)} {self.trellis.dtype}"
            )
        if shape[2] % _TILE and self.codebook != TrellisCodebook.MUL1:
            raise LayoutError(f"a trellis of {self.bits} bits has the codebook mul1")
        for name, scale, tiles in (("suh", self.suh, shape[0]), ("svh", self.svh, shape[1])):
            if scale.dtype != torch.float16 or tuple(scale.shape) != (tiles * _TILE,):
                raise LayoutError(
                    f"{name} of a trellis {list(shape)} is [{tiles * _TILE}] float16, not "
                    f"{list(scale.shape)} {scale.dtype}"
                )
            if tiles * _TILE % TRELLIS_BLOCK:
                raise LayoutError(
                    f"a trellis has dimensions in multiples of {TRELLIS_BLOCK}, not {tiles * _TILE}"
                )

    @property
    def bits(self) -> float:
        """Bits of one weight."""
        return self.pair_bits / 2

    @property
    def pair_bits(self) -> int:
        """Bits of two weights that follow each other; of 5, the first has 2."""
        return self.trellis.shape[2] * 2 // _TILE

    @property
    def in_features(self) -> int:
        return len(self.suh) if self.width is None else self.width

    @property
    def out_features(self) -> int:
        return len(self.svh if self.picked is None else self.picked)

    @property
    def nbytes(self) -> int:
        picked = 0 if self.picked is None else self.picked.nbytes
        return self.trellis.nbytes + self.suh.nbytes + self.svh.nbytes + picked

    @property
    def device(self) -> torch.device:
        return self.trellis.device

    def decode(self) -> Tensor:
        """D [N, K] float16: before transforms and scales, with what is not picked and padding."""
        return torch.cat(list(self._decoded()))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense matrix; only a few rows of it are ever wider than `dtype`."""
        full = torch.empty(len(self.svh), self.in_features, dtype=dtype, device=self.device)
        turn, start = sylvester(TRELLIS_BLOCK, self.device), 0
        for decoded in self._decoded():
            rows = slice(start, start + len(decoded))
            blocks = decoded.float().view(-1, TRELLIS_BLOCK, len(self.suh))
            wide = (turn @ blocks).view(-1, TRELLIS_BLOCK) @ turn
            wide = wide.view(len(decoded), -1) * self.suh.float()
            full[rows] = wide[:, : self.in_features] * self.svh[rows].float()[:, None]
            start = rows.stop
        return full if self.picked is None else full[self.picked]

    def rows(self, index: Tensor) -> Self:
        """The blocks that hold such a row, as the transform mixes all rows of a block."""
        wanted = index if self.picked is None else self.picked[index]
        held = torch.zeros(len(self.svh) // TRELLIS_BLOCK, dtype=torch.bool, device=self.device)
        held[wanted // TRELLIS_BLOCK] = True
        held[0] |= not len(wanted)  # no layout is without a block
        blocks = held.nonzero().flatten()
        place = held.cumsum(0)[wanted // TRELLIS_BLOCK] - 1
        tiles = self.trellis.unflatten(1, (-1, TRELLIS_BLOCK // _TILE))[:, blocks].flatten(1, 2)
        svh = self.svh.view(-1, TRELLIS_BLOCK)[blocks].flatten()
        picked = place * TRELLIS_BLOCK + wanted % TRELLIS_BLOCK
        return replace(self, trellis=tiles, svh=svh, picked=picked)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        if axis == 0 and self.picked is not None:
            raise LayoutError("picked rows of a trellis do not divide; divide it, then pick")
        if axis == 1 and self.width is not None:
            raise LayoutError(f"a trellis of {len(self.suh)} columns, padded, has no equal parts")
        extent = len(self.svh if axis == 0 else self.suh)
        if extent % (size * TRELLIS_BLOCK):
            raise LayoutError(
                f"a trellis of {extent} does not divide into {size} parts of whole {TRELLIS_BLOCK}"
            )
        part, tiles = extent // size, extent // size // _TILE
        trellis = self.trellis.narrow(1 - axis, rank * tiles, tiles).contiguous()
        scale = (self.svh if axis == 0 else self.suh).narrow(0, rank * part, part)
        if axis == 0:
            return replace(self, trellis=trellis, svh=scale)
        return replace(self, trellis=trellis, suh=scale)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        first = parts[0]
        for part in parts[1:]:
            kinds = [(each.bits, each.codebook, each.in_features) for each in (part, first)]
            if kinds[0] != kinds[1] or not torch.equal(part.suh, first.suh):
                raise LayoutError("cannot stack trellises of different bits, codebook or suh")
        picked = None
        if any(part.picked is not None for part in parts):
            starts = accumulate((len(part.svh) for part in parts), initial=0)
            moved = zip(parts, starts, strict=False)  # the last start is the end
            picked = torch.cat([part._all_rows() + start for part, start in moved])
        trellis = torch.cat([part.trellis for part in parts], 1)
        return replace(
            first, trellis=trellis, svh=torch.cat([part.svh for part in parts]), picked=picked
        )

    def cropped(self, rows: int, columns: int) -> PackedWeight:
        full = (self.out_features, self.in_features)
        blocks = [-(-extent // TRELLIS_BLOCK) * TRELLIS_BLOCK for extent in (rows, columns)]
        if self.picked is not None or self.width is not None or tuple(blocks) != full:
            return super().cropped(rows, columns)
        picked = None if rows == full[0] else torch.arange(rows, device=self.device)
        return replace(self, picked=picked, width=None if columns == full[1] else columns)

    def to(self, device: torch.device) -> Self:
        picked = None if self.picked is None else self.picked.to(device)
        trellis, suh, svh = (part.to(device) for part in (self.trellis, self.suh, self.svh))
        return replace(self, trellis=trellis, suh=suh, svh=svh, picked=picked)

    def _all_rows(self) -> Tensor:
        if self.picked is not None:
            return self.picked
        return torch.arange(len(self.svh), device=self.device)

    def _decoded(self) -> Iterator[Tensor]:
        """D from its first row to its last, so many whole blocks of rows at a time."""
        word, shift = _windows(self.pair_bits)
        word, shift = word.to(self.device), shift.to(self.device)
        numbers = trellis_numbers(self.codebook, self.device)
        blocks = max(1, _DECODED_AT_ONCE // (TRELLIS_BLOCK * len(self.suh)))
        height, end = blocks * TRELLIS_BLOCK // _TILE, self.trellis.shape[1]
        for start in range(0, end, height):
            halves = self.trellis[:, start : start + height].int() & 0xFFFF
            high, low = halves[..., word], halves[..., _behind(word, self.pair_bits)]
            state = (high << 16 | low) >> shift & 0xFFFF
            number = numbers[state.int()].unflatten(2, (_TILE, _TILE))  # [K/16, N/16, in, out]
            yield number.permute(1, 3, 0, 2).reshape(-1, len(self.suh))


def symbol_places() -> Tensor:
    """[256] int64: for each symbol of a tile, in the order of the stream, 16 * row + column.

    Rows count in features, columns out features.
    """
    symbol = torch.arange(256)
    lane, of_lane = symbol // 8, symbol % 8
    row = lane % 4 * 2 + of_lane % 2 + of_lane % 4 // 2 * 8
    column = lane // 4 + of_lane // 4 * 8
    return row * 16 + column


@cache
def _windows(pair_bits: int) -> tuple[Tensor, Tensor]:
    """For each weight of a tile, in row-major order of (in, out): half-word and shift of its state.

    Weights follow each other as the operand of a tensor core's product has them in its lanes.
    """
    start = ((torch.arange(256) + 1) * pair_bits // 2 - 16) % (128 * pair_bits)
    order = symbol_places().argsort()
    # The stream runs from the highest bit of a word of two halves, of which the low is first.
    return (start // 16 ^ 1)[order], (16 - start % 16)[order].int()


def _behind(word: Tensor, pair_bits: int) -> Tensor:
    """The half-words that follow in the stream, a ring."""
    return ((word ^ 1) + 1) % (8 * pair_bits) ^ 1


def trellis_numbers(codebook: TrellisCodebook, device: torch.device) -> Tensor:
    """What each of the 65 536 states stands for, float16."""
    state = torch.arange(1 << 16, dtype=torch.int64, device=device)
    if codebook == TrellisCodebook.MUL1:
        mixed = state * 0x83DCD12D & 0xFFFFFFFF
        total = sum((mixed >> shift & 0xFF for shift in (8, 16, 24)), mixed & 0xFF)
        # The factors are the half-precision numbers 0x1EEE and 0xC931; rounded once, at the end.
        return ((1024 + total).double() * (887 / 2**17) - 1329 / 2**7).half()
    mcg = codebook == TrellisCodebook.MCG
    mixed = state * 0xCBAC1FED if mcg else state * 89226354 + 64248484
    mixed = mixed & 0x8FFF8FFF ^ 0x3B603B60
    halves = torch.stack((mixed & 0xFFFF, mixed >> 16 & 0xFFFF))
    low, high = halves.int().short().view(torch.float16)
    return low + high
