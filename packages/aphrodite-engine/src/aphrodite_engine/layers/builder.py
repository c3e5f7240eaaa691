"""Makes layers whole from the weights of a checkpoint.

A `Builder` stands at a place in the tree of names (`at` goes deeper) and knows the backend; what it
takes it takes once. At the end, `unread` are the tensors that no layer wanted: a model that leaves
some is not the model of that checkpoint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts import Dense, PackedWeight
from torch import Tensor

from aphrodite_engine.layers.embedding import Embedding
from aphrodite_engine.layers.linear import Linear, Parallel
from aphrodite_engine.layers.norm import Norm


class WeightSource(Protocol):
    """The weights of a checkpoint under their Hugging Face names."""

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight:
        """The matrix [N, K] of the layer `name`, in whatever format it is stored."""
        ...

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A plain tensor (a norm's weight, a bias) as float32."""
        ...


@dataclass(frozen=True, slots=True)
class Builder:
    """Weights below `prefix`, for one backend."""

    weights: WeightSource
    backend: Backend
    prefix: str = ""
    quantize: Callable[[Dense], PackedWeight] | None = None
    """What becomes of plain projections; embedding and head stay as they are."""

    def at(self, name: str) -> "Builder":
        """The builder of a part."""
        return replace(self, prefix=f"{self.prefix}{name}.")

    def linear(self, name: str, shape: tuple[int, int], *, bias: bool = False) -> Linear:
        """A projection of shape [N, K]."""
        weight, vector = self._projection(name, shape, bias=bias)
        return Linear(self.backend, self.backend.prepare(weight), vector)

    def parallel(
        self, widths: Mapping[str, int], in_features: int, *, bias: bool = False
    ) -> Parallel:
        """Projections (name -> N) of one input, stacked as far as their layouts allow."""
        parts = [
            self._projection(name, (width, in_features), bias=bias)
            for name, width in widths.items()
        ]
        return Parallel(self.backend, parts)

    def norm(self, name: str, width: int, eps: float, *, offset: float = 0.0) -> Norm:
        """A norm whose weight is `offset` plus what the checkpoint has."""
        weight = self.weights.tensor(f"{self.prefix}{name}.weight", (width,))
        return Norm(self.backend, weight + offset, eps)

    def embedding(self, name: str, shape: tuple[int, int], scale: float = 1.0) -> Embedding:
        """The embedding of tokens, [V, hidden]."""
        weight = self.weights.packed(f"{self.prefix}{name}", shape)
        return Embedding(self.backend, weight, scale)

    def head(self, name: str, shape: tuple[int, int], tied: Embedding | None) -> Linear:
        """The projection to logits: the embedding's weight if tied."""
        if tied is not None:
            return Linear(self.backend, self.backend.prepare(tied.weight))
        return replace(self, quantize=None).linear(name, shape)

    def _projection(
        self, name: str, shape: tuple[int, int], *, bias: bool
    ) -> tuple[PackedWeight, Tensor | None]:
        module = f"{self.prefix}{name}"
        vector = self.weights.tensor(f"{module}.bias", shape[:1]) if bias else None
        weight = self.weights.packed(module, shape)
        if self.quantize is not None and isinstance(weight, Dense):
            weight = self.quantize(weight)
        return weight, vector
