"""Projections that are not there yet: the model is built around them, and whoever knows the weights
is asked for each product.

So the models' own code runs calibration, whatever the architecture, with one projection in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Self

import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from torch import Tensor

from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.layers.embedding import Embedding
from aphrodite_engine.layers.linear import Linear


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear layer within the blocks of a model."""

    module: str
    """Its Hugging Face name."""
    shape: tuple[int, int]
    """[N, K]."""


@dataclass(frozen=True, eq=False)
class Observed(PackedWeight):
    """Projections of one input, stacked, known by name and shape alone."""

    projections: tuple[Projection, ...]
    place: torch.device

    @property
    def in_features(self) -> int:
        return self.projections[0].shape[1]

    @property
    def out_features(self) -> int:
        return sum(projection.shape[0] for projection in self.projections)

    @property
    def nbytes(self) -> int:
        return 0

    @property
    def device(self) -> torch.device:
        return self.place

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        self._refuse()

    def rows(self, index: Tensor) -> Self:
        self._refuse()

    def shard(self, axis: int, rank: int, size: int) -> Self:
        self._refuse()

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        return cls(tuple(one for part in parts for one in part.projections), parts[0].place)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.projections, device)

    def _refuse(self) -> NoReturn:
        modules = ", ".join(projection.module for projection in self.projections)
        raise LayoutError(f"{modules} have no weights here: they are being quantised")


@dataclass(frozen=True, slots=True)
class ObservingBuilder(Builder):
    """Builds a model whose projections are `Observed`; its vectors, embedding and head are read."""

    def head(self, name: str, shape: tuple[int, int], tied: Embedding | None) -> Linear:
        """As it is: heads are not quantised."""
        return Builder(self.weights, self.backend, self.prefix).head(name, shape, tied)

    def _projection(
        self, name: str, shape: tuple[int, int], *, bias: bool
    ) -> tuple[PackedWeight, Tensor | None]:
        module = f"{self.prefix}{name}"
        vector = self.weights.tensor(f"{module}.bias", shape[:1]) if bias else None
        return Observed((Projection(module, shape),), self.backend.device), vector
