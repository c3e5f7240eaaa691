"""Weights of a backend that keep the canonical layout they read from."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight


@dataclass(frozen=True, eq=False)
class Sourced(PackedWeight):
    """A weight whose `source` has its shape and numbers, and is what is split and stacked."""

    source: PackedWeight

    @classmethod
    @abstractmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight, if kernels read such a source."""

    @property
    def in_features(self) -> int:
        return self.source.in_features

    @property
    def out_features(self) -> int:
        return self.source.out_features

    @property
    def nbytes(self) -> int:
        return self.source.nbytes

    @property
    def device(self) -> torch.device:
        return self.source.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.source.dequantize(dtype)

    def rows(self, index: Tensor) -> Self:
        return self._of(self.source.rows(index))

    def shard(self, axis: int, rank: int, size: int) -> Self:
        return self._of(self.source.shard(axis, rank, size))

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        sources = [weight.source for weight in cls.all_of(weights)]
        return cls._of(type(sources[0]).stack(sources))

    def to(self, device: torch.device) -> Self:
        if device.type != self.device.type:
            raise LayoutError(f"a weight prepared on {self.device} cannot be sent to {device}")
        return self

    @classmethod
    def _of(cls, source: PackedWeight) -> Self:
        made = cls.of(source)
        if made is None:
            raise LayoutError(
                "rows of such a weight cannot be picked for a backend's kernels; "
                "use the backend's embed, or pick rows before it is prepared"
            )
        return made
