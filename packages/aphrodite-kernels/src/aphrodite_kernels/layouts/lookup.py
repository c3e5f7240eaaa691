"""Codes of three to eight bits into a table of as many numbers, with or without scales.

NormalFloat and FP4 of bitsandbytes have one table for a whole matrix and a scale for every few
columns, floats of six bits one of 64 numbers; SqueezeLLM has a table for every row and no scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes

ENTRIES = 16
_ENTRIES = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, eq=False)
class Lookup(PackedWeight):
    """W[n, k] = table[n, code[n, k]] * scale[n, k // group]."""

    codes: Tensor
    """[N, K * bits / 8] uint8: the codes of a row as one little-endian bit stream."""
    table: Tensor
    """[N, 2**bits] float32, or [1, 2**bits] if the rows share one."""
    scale: Tensor | None
    """[N, K / group] float32; None: all are 1."""
    group: int
    """Columns for each scale; K without scales."""

    def __post_init__(self) -> None:
        if self.codes.dtype != torch.uint8 or self.codes.ndim != 2:
            raise LayoutError(
                f"codes are a matrix of uint8, not {self.codes.dtype} of {self.codes.ndim} "
                "dimensions"
            )
        entries = self.table.shape[-1] if self.table.ndim == 2 else 0
        height = self.out_features
        if entries not in _ENTRIES or self.codes.shape[1] * 8 % self.bits:
            raise LayoutError(
                f"a table of {entries} entries has no codes that fill rows of "
                f"{self.codes.shape[1]} bytes; it has one of {', '.join(map(str, _ENTRIES))}"
            )
        tables = ((1, entries), (height, entries))
        if self.table.dtype != torch.float32 or tuple(self.table.shape) not in tables:
            raise LayoutError(
                f"the table of {height} rows is [1, {entries}] or [{height}, {entries}] float32, "
                f"not {list(self.table.shape)} {self.table.dtype}"
            )
        width = self.in_features
        if self.group < 1 or width % self.group:
            raise LayoutError(f"{width} columns do not divide into groups of {self.group}")
        scale, expected = self.scale, (height, width // self.group)
        if scale is not None and (scale.dtype != torch.float32 or tuple(scale.shape) != expected):
            raise LayoutError(
                f"the scales of {[height, width]} codes in groups of {self.group} are "
                f"{list(expected)} float32, not {list(scale.shape)} {scale.dtype}"
            )

    @property
    def bits(self) -> int:
        """Of one code."""
        return self.table.shape[1].bit_length() - 1

    @property
    def in_features(self) -> int:
        return self.codes.shape[1] * 8 // self.bits

    @property
    def out_features(self) -> int:
        return self.codes.shape[0]

    @property
    def nbytes(self) -> int:
        scales = 0 if self.scale is None else self.scale.nbytes
        return self.codes.nbytes + self.table.nbytes + scales

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        codes = unpack_codes(self.codes, self.bits).long()
        wide = self.table[0][codes] if len(self.table) == 1 else self.table.gather(1, codes)
        if self.scale is not None:
            wide = wide * self.scale.repeat_interleave(self.group, 1)
        return wide.to(dtype)

    def rows(self, index: Tensor) -> Self:
        table = self.table if len(self.table) == 1 else self.table[index]
        scale = None if self.scale is None else self.scale[index]
        return type(self)(self.codes[index], table, scale, self.group)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        extent = self.in_features if axis == 1 else self.out_features
        whole = self.group == self.in_features
        unit = (8 // gcd(8, self.bits) if whole else self.group) if axis == 1 else 1
        if extent % (size * unit):
            raise LayoutError(
                f"a dimension of {extent} in groups of {unit} does not divide into {size} parts"
            )

        def part(tensor: Tensor) -> Tensor:
            length = tensor.shape[axis] // size
            return tensor.narrow(axis, rank * length, length).contiguous()

        table = part(self.table) if axis == 0 and len(self.table) > 1 else self.table
        scale = self.scale
        if scale is not None and not (axis == 1 and whole):
            scale = part(scale)
        group = extent // size if axis == 1 and whole else self.group
        return type(self)(part(self.codes), table, scale, group)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.in_features, part.bits, part.group, part.scale is None) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack weights with tables of different kinds: {kinds}")
        table = parts[0].table
        if len(table) > 1 or not all(torch.equal(part.table, table) for part in parts):
            table = torch.cat(
                [part.table.expand(part.out_features, table.shape[1]) for part in parts]
            )
        scales = [part.scale for part in parts if part.scale is not None]
        scale = torch.cat(scales) if scales else None
        return cls(torch.cat([part.codes for part in parts]), table, scale, parts[0].group)

    def to(self, device: torch.device) -> Self:
        scale = None if self.scale is None else self.scale.to(device)
        return type(self)(self.codes.to(device), self.table.to(device), scale, self.group)
