"""Canonical layouts as codes with float32 scales, which any of them becomes before it is tiled.

What does not fit (columns that are no multiple of 32, groups that are none of 16) has no such form.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.tile_format import Fields, Scales, TileFormat
from aphrodite_kernels.layouts import (
    Grouped,
    Microscaled,
    PackedWeight,
    Scaled,
)
from aphrodite_kernels.layouts.microscaled import E2M1

BLOCK = 32
_HALF = 16

_FIELDS = {
    1: Fields.TWO,
    2: Fields.TWO,
    3: Fields.TWO_ONE,
    4: Fields.FOUR,
    5: Fields.FOUR_ONE,
    6: Fields.FOUR_TWO,
    7: Fields.EIGHT,
    8: Fields.EIGHT,
}


@dataclass(frozen=True, eq=False)
class Coded:
    """W[n, columns[k]] = scale[n, k // group] * (u - 2**offset_log2), or scale * u + minimum.

    u is code[n, k] with the bits of `flip` turned over, or the number that it finds in the table.
    """

    codes: Tensor
    """[N, K * bits / 8] uint8: a row is one little-endian bit stream."""
    bits: int
    scale: Tensor
    """[N, ceil(K / group)] float32."""
    group: int
    """A multiple of 16."""
    offset_log2: int
    minimum: Tensor | None = None
    """As the scale; None: there is an offset instead."""
    table: bytes | None = None
    """Of sixteen numbers, for four bits."""
    flip: int = 0
    columns: Tensor | None = None
    """[K] int64: the input feature that each stored column is for; None: in order."""

    @property
    def format(self) -> TileFormat:
        """The tiles that hold it."""
        halves = self.group % BLOCK != 0
        if self.minimum is None:
            scales = Scales.SINGLE_16 if halves else Scales.SINGLE_32
        else:
            scales = Scales.SINGLE_PAIR_16 if halves else Scales.SINGLE_PAIR_32
        span = self.group // (_HALF if halves else BLOCK)
        if self.table is None:
            return TileFormat(_FIELDS[self.bits], scales, self.offset_log2, span)
        return TileFormat(Fields.LOOK_UP, scales, self.offset_log2, span, self.table)


def coded(weight: PackedWeight) -> Coded | None:
    """The weight in this form; None if it has none."""
    code = _LAYOUTS.get(type(weight))
    return code(weight) if code else None


def _grouped(weight: PackedWeight) -> Coded | None:
    assert isinstance(weight, Grouped)
    if not _fits(weight, weight.group):
        return None
    scale = weight.scale.float()
    return Coded(
        weight.codes,
        weight.bits,
        scale,
        weight.group,
        offset_log2=weight.bits - 1,
        minimum=None if weight.zero is None else -weight.zero.float() * scale,
        columns=weight.columns,
    )


def _microscaled(weight: PackedWeight) -> Coded | None:
    """Doubled, elements of four bits are whole."""
    assert isinstance(weight, Microscaled)
    if weight.elements.dtype != torch.uint8 or not _fits(weight, weight.group):
        return None
    scale = weight.scale.float()
    if weight.row_scale is not None:
        scale = scale * weight.row_scale
    table = bytes(int(2 * number) + 16 for number in E2M1)
    return Coded(weight.elements, 4, scale / 2, weight.group, offset_log2=4, table=table)


def _scaled(weight: PackedWeight) -> Coded | None:
    """Integers only: with their highest bit turned over they are 128 above."""
    assert isinstance(weight, Scaled)
    group = min(weight.block[1], weight.in_features)
    if weight.weight.dtype != torch.int8 or not _fits(weight, group):
        return None
    codes = weight.weight.view(torch.uint8)
    return Coded(codes, 8, weight.by_rows().scale, group, offset_log2=7, flip=0x80)


def _fits(weight: PackedWeight, group: int) -> bool:
    return weight.in_features % BLOCK == 0 and group % _HALF == 0


_LAYOUTS: Mapping[type[PackedWeight], Callable[[PackedWeight], Coded | None]] = {
    Grouped: _grouped,
    Microscaled: _microscaled,
    Scaled: _scaled,
}
CODED_LAYOUTS = tuple(_LAYOUTS)
"""The layouts that have this form, most of them."""
