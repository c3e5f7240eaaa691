"""Weights of eight bits (float8_e4m3fn or int8) with a float32 scale for every block of them.

A block is a row (one scale per output channel), a rectangle (128 x 128 in fine-grained checkpoints)
or the whole matrix (one scale per tensor).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight

_DTYPES = (torch.float8_e4m3fn, torch.int8)


@dataclass(frozen=True, eq=False)
class Scaled(PackedWeight):
    """W[n, k] = weight[n, k] * scale[n // block[0], k // block[1]]."""

    weight: Tensor
    """[N, K] float8_e4m3fn or int8."""
    scale: Tensor
    """[ceil(N / block[0]), ceil(K / block[1])] float32."""
    block: tuple[int, int]

    def __post_init__(self) -> None:
        if self.weight.dtype not in _DTYPES or self.weight.ndim != 2:
            raise LayoutError(
                f"a scaled weight is a matrix of float8_e4m3fn or int8, not {self.weight.dtype} "
                f"of {self.weight.ndim} dimensions"
            )
        expected = tuple(
            -(-extent // size) for extent, size in zip(self.weight.shape, self.block, strict=True)
        )
        if self.scale.dtype != torch.float32 or tuple(self.scale.shape) != expected:
            raise LayoutError(
                f"the scales of {list(self.weight.shape)} weights in blocks of "
                f"{list(self.block)} are {list(expected)} float32, not {list(self.scale.shape)} "
                f"{self.scale.dtype}"
            )

    @property
    def in_features(self) -> int:
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        return self.weight.shape[0]

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.scale.nbytes

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @property
    def per_row(self) -> bool:
        """One scale per output channel."""
        return self.block == (1, self.in_features)

    def by_rows(self) -> Self:
        """The same weight with scales of its own for every row; exact."""
        scale = self.scale.repeat_interleave(self.block[0], 0)[: self.out_features]
        return type(self)(self.weight, scale, (1, self.block[1]))

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        rows = self.by_rows().scale
        scale = rows.repeat_interleave(self.block[1], 1)[:, : self.in_features]
        return (self.weight.float() * scale).to(dtype)

    def rows(self, index: Tensor) -> Self:
        # Torch cannot index float8 on every device; as bytes it can.
        weight = self.weight.view(torch.uint8)[index].view(self.weight.dtype)
        return type(self)(weight, self.scale[index // self.block[0]], (1, self.block[1]))

    def shard(self, axis: int, rank: int, size: int) -> Self:
        extent, unit = self.weight.shape[axis], self.block[axis]
        part = extent // size
        whole = unit >= extent
        if extent % size or not (whole or part % unit == 0):
            raise LayoutError(
                f"a dimension of {extent} in blocks of {unit} does not divide into {size} parts"
            )
        weight = self.weight.narrow(axis, rank * part, part).contiguous()
        block = (part, self.block[1]) if axis == 0 else (self.block[0], part)
        if whole:
            return type(self)(weight, self.scale, block)
        scale = self.scale.narrow(axis, rank * part // unit, part // unit)
        return type(self)(weight, scale.contiguous(), self.block)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.in_features, part.block[1], part.weight.dtype) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack scaled weights of different kinds: {kinds}")
        heights = {part.block[0] for part in parts}
        if len(heights) > 1 or any(part.out_features % part.block[0] for part in parts[:-1]):
            parts = [part.by_rows() for part in parts]
        weight = torch.cat([part.weight.view(torch.uint8) for part in parts])
        scale = torch.cat([part.scale for part in parts])
        return cls(weight.view(parts[0].weight.dtype), scale, parts[0].block)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.weight.to(device), self.scale.to(device), self.block)
