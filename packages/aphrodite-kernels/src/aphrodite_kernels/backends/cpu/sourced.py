"""Weights of the CPU backend that keep the canonical layout they read from."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.fallback import any_embed_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.protocols import Embed


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
        if device.type != "cpu":
            raise LayoutError(f"a weight of the CPU backend cannot be sent to {device}")
        return self

    @classmethod
    def _of(cls, source: PackedWeight) -> Self:
        made = cls.of(source)
        if made is None:
            raise LayoutError(
                "rows of such a weight cannot be picked for the CPU's kernels; "
                "use the backend's embed, or pick rows before it is prepared"
            )
        return made


def sourced_rows_on(runtime: Runtime) -> Embed:
    """The look-up of rows in the source, without a kernel."""
    look_up = any_embed_on(runtime)

    def sourced_rows(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Sourced), f"bound to {type(weight).__name__}"
        return look_up(tokens, weight.source, scale)

    return sourced_rows
