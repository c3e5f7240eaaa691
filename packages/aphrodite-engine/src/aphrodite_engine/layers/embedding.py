"""The embedding of tokens."""

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts.base import PackedWeight
from torch import Tensor


class Embedding:
    """scale * W[tokens]."""

    def __init__(self, backend: Backend, weight: PackedWeight, scale: float) -> None:
        prepared = backend.prepare(weight)
        # A tied head shares the re-tiled weight, unless rows cannot be looked up in that tiling.
        shared = type(prepared) in backend.embed
        self.weight = prepared if shared else weight.to(backend.device)
        """What a tied head multiplies with."""
        self._scale = scale
        self._embed = backend.embed_for(self.weight)

    def __call__(self, tokens: Tensor) -> Tensor:
        """[T] int32 -> [T, K]."""
        return self._embed(tokens, self.weight, self._scale)
