"""Four-bit codes into a table of sixteen numbers, with or without scales.

NormalFloat and FP4 of bitsandbytes have one table for a whole matrix and a scale for every few
columns; SqueezeLLM has a table for every row and no scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight, check_division, share
from aphrodite_kernels.layouts.grouped import unpack_codes

ENTRIES = 16


@dataclass(frozen=True, eq=False)
class Lookup(PackedWeight):
    """W[n, k] = table[n, code[n, k]] * scale[n, k // group]."""

    codes: Tensor
    """[N, K / 2] uint8: the code of the even column in the low four bits."""
    table: Tensor
    """[N, 16] float32, or [1, 16] if the rows share one."""
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
        height, width = self.out_features, self.in_features
        tables = ((1, ENTRIES), (height, ENTRIES))
        if self.table.dtype != torch.float32 or tuple(self.table.shape) not in tables:
            raise LayoutError(
                f"the table of {height} rows is [1, 16] or [{height}, 16] float32, not "
                f"{list(self.table.shape)} {self.table.dtype}"
            )
        if self.group < 1 or width % self.group:
            raise LayoutError(f"{width} columns do not divide into groups of {self.group}")
        scale, expected = self.scale, (height, width // self.group)
        if scale is not None and (scale.dtype != torch.float32 or tuple(scale.shape) != expected):
            raise LayoutError(
                f"the scales of {[height, width]} codes in groups of {self.group} are "
                f"{list(expected)} float32, not {list(scale.shape)} {scale.dtype}"
            )

    @property
    def in_features(self) -> int:
        return self.codes.shape[1] * 2

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
        codes = unpack_codes(self.codes, 4).long()
        wide = self.table[0][codes] if len(self.table) == 1 else self.table.gather(1, codes)
        if self.scale is not None:
            wide = wide * self.scale.repeat_interleave(self.group, 1)
        return wide.to(dtype)

    def rows(self, index: Tensor) -> Self:
        table = self.table if len(self.table) == 1 else self.table[index]
        scale = None if self.scale is None else self.scale[index]
        return type(self)(self.codes[index], table, scale, self.group)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        unit = (2 if self.scale is None else self.group) if axis == 1 else 1
        check_division(self.in_features if axis == 1 else self.out_features, unit, size)
        part = partial(share, axis=axis, rank=rank, size=size)
        table = part(self.table) if axis == 0 and len(self.table) > 1 else self.table
        scale = None if self.scale is None else part(self.scale)
        codes = part(self.codes)
        group = codes.shape[1] * 2 if scale is None else self.group
        return type(self)(codes, table, scale, group)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.in_features, part.group, part.scale is None) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack weights with tables of different kinds: {kinds}")
        table = parts[0].table
        if len(table) > 1 or not all(torch.equal(part.table, table) for part in parts):
            table = torch.cat([part.table.expand(part.out_features, ENTRIES) for part in parts])
        scales = [part.scale for part in parts if part.scale is not None]
        scale = torch.cat(scales) if scales else None
        return cls(torch.cat([part.codes for part in parts]), table, scale, parts[0].group)

    def to(self, device: torch.device) -> Self:
        scale = None if self.scale is None else self.scale.to(device)
        return type(self)(self.codes.to(device), self.table.to(device), scale, self.group)
