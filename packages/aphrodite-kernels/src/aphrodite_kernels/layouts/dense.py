"""Unquantised weights: float32, float16 or bfloat16, row-major."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight


@dataclass(frozen=True, eq=False)
class Dense(PackedWeight):
    """W as it is: `weight` [N, K] in a floating dtype."""

    weight: Tensor

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.weight.to(dtype)

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.weight[index])

    def shard(self, axis: int, rank: int, size: int) -> Self:
        extent = self.weight.shape[axis]
        if extent % size:
            raise LayoutError(f"a dimension of {extent} does not divide into {size} parts")
        part = extent // size
        return type(self)(self.weight.narrow(axis, rank * part, part))

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(str(part.weight.dtype), part.in_features) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack dense weights of different dtype or width: {kinds}")
        return cls(torch.cat([part.weight for part in parts]))

    def to(self, device: torch.device) -> Self:
        return type(self)(self.weight.to(device))
