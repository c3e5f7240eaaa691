"""A weight whose rows are sequences of ggml blocks, exactly as a GGUF file stores them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.layouts.ggml.types import GgmlType

_CHUNK = 1 << 18
"""Elements decoded at a time: the temporaries stay in the processor's cache."""


@dataclass(frozen=True, eq=False)
class GgmlBlocks(PackedWeight):
    """`data` [N, bytes per row] uint8, each row contiguous; every block spans elements along K."""

    data: Tensor
    type: GgmlType

    def __post_init__(self) -> None:
        if self.type not in DECODERS:
            present = ", ".join(kind.name for kind in sorted(DECODERS))
            raise LayoutError(f"ggml type {self.type.name} has no decoder; present are {present}")
        if self.data.dtype != torch.uint8 or self.data.ndim != 2:
            raise LayoutError(
                f"ggml blocks are a uint8 matrix, not {self.data.dtype} of {self.data.ndim} "
                "dimensions"
            )
        if self.data.shape[1] % self.type.block_bytes:
            raise LayoutError(
                f"a row of {self.data.shape[1]} bytes is no whole number of {self.type.name} "
                f"blocks of {self.type.block_bytes} bytes"
            )

    @property
    def in_features(self) -> int:
        return self.data.shape[1] // self.type.block_bytes * self.type.block_size

    @property
    def out_features(self) -> int:
        return self.data.shape[0]

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def device(self) -> torch.device:
        return self.data.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        decode = DECODERS[self.type]
        shape = (self.out_features, self.in_features)
        dense = torch.empty(shape, dtype=dtype, device=self.device)
        step = max(1, _CHUNK // max(1, self.in_features))
        for part, rows in zip(torch.split(dense, step), torch.split(self.data, step), strict=True):
            part.copy_(decode(rows.reshape(-1, self.type.block_bytes)).view(part.shape))
        return dense

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.data[index], self.type)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        unit = self.type.block_bytes if axis == 1 else 1
        extent = self.data.shape[axis] // unit
        if extent % size:
            what = f"{extent} {self.type.name} blocks along K" if axis == 1 else f"{extent} rows"
            raise LayoutError(f"{what} do not divide into {size} parts")
        part = extent // size * unit
        return type(self)(self.data.narrow(axis, rank * part, part).contiguous(), self.type)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.type.name, part.in_features) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack ggml blocks of different type or width: {kinds}")
        return cls(torch.cat([part.data for part in parts]), parts[0].type)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.data.to(device), self.type)
