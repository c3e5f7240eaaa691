"""Weights of a few bits each, with a scale and a zero point for every column of a group of rows.

HQQ along axis 0 shares a scale among rows that lie far apart, so each row says which group it is
of. Scales and zero points keep their floating dtype; everything is computed in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight, share
from aphrodite_kernels.layouts.grouped import unpack_codes

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True, eq=False)
class RowGrouped(PackedWeight):
    """W[n, k] = (code[n, k] - zero[group[n], k]) * scale[group[n], k]."""

    codes: Tensor
    """[N, K * bits / 8] uint8: the codes of a row as one little-endian bit stream."""
    scale: Tensor
    """[G, K] of a floating dtype."""
    zero: Tensor
    """[G, K] of a floating dtype, perhaps fractional."""
    group: Tensor
    """[N] int64 below G: the group of each row."""
    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise LayoutError(f"weights in groups of rows have 1 to 8 bits, not {self.bits}")
        if self.codes.dtype != torch.uint8 or self.codes.ndim != 2:
            raise LayoutError(
                f"packed codes are a uint8 matrix, not {self.codes.dtype} of "
                f"{self.codes.ndim} dimensions"
            )
        if self.codes.shape[1] * 8 % self.bits:
            raise LayoutError(
                f"rows of {self.codes.shape[1]} bytes do not hold whole codes of {self.bits} bits"
            )
        columns = self.in_features
        for name, tensor in (("scale", self.scale), ("zero", self.zero)):
            if (
                tensor.ndim != 2
                or tensor.shape != self.scale.shape
                or tensor.shape[1] != columns
                or tensor.dtype not in _FLOATS
            ):
                raise LayoutError(
                    f"the {name} of {columns} columns in groups of rows is [groups, {columns}] "
                    f"floating numbers, not {list(tensor.shape)} {tensor.dtype}"
                )
        if self.group.dtype != torch.int64 or tuple(self.group.shape) != (self.out_features,):
            raise LayoutError(
                f"the groups of {self.out_features} rows are [{self.out_features}] int64, not "
                f"{list(self.group.shape)} {self.group.dtype}"
            )

    @property
    def in_features(self) -> int:
        return self.codes.shape[1] * 8 // self.bits

    @property
    def out_features(self) -> int:
        return self.codes.shape[0]

    @property
    def nbytes(self) -> int:
        tensors = (self.codes, self.scale, self.zero, self.group)
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        wide = unpack_codes(self.codes, self.bits).float()
        wide.sub_(self.zero.float()[self.group]).mul_(self.scale.float()[self.group])
        return wide.to(dtype)

    def rows(self, index: Tensor) -> Self:
        return replace(self, codes=self.codes[index], group=self.group[index])

    def shard(self, axis: int, rank: int, size: int) -> Self:
        extent = self.in_features if axis == 1 else self.out_features
        part = extent // size
        if extent % size or (axis == 1 and part * self.bits % 8):
            raise LayoutError(
                f"a dimension of {extent} of {self.bits} bits does not divide into {size} parts"
            )

        cut = partial(share, axis=axis, rank=rank, size=size)
        if axis == 0:
            return replace(self, codes=cut(self.codes), group=cut(self.group))
        return replace(self, codes=cut(self.codes), scale=cut(self.scale), zero=cut(self.zero))

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.in_features, part.bits) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack row groups of different width or bits: {kinds}")
        groups: list[Tensor] = []
        first = 0
        for part in parts:
            groups.append(part.group + first)
            first += len(part.scale)
        return replace(
            parts[0],
            codes=torch.cat([part.codes for part in parts]),
            scale=torch.cat([part.scale for part in parts]),
            zero=torch.cat([part.zero for part in parts]),
            group=torch.cat(groups),
        )

    def to(self, device: torch.device) -> Self:
        return replace(
            self,
            codes=self.codes.to(device),
            scale=self.scale.to(device),
            zero=self.zero.to(device),
            group=self.group.to(device),
        )
