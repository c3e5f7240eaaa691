"""The embedding of tokens."""

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts.base import PackedWeight
from torch import Tensor


class Embedding:
    """scale * W[tokens]."""

    def __init__(self, backend: Backend, weight: PackedWeight, scale: float) -> None:
        self.weight = weight.to(backend.device)
        """As the checkpoint has it: a tied head makes its own arrangement from it."""
        self._scale = scale
        self._embed = backend.embed_for(self.weight)

    def __call__(self, tokens: Tensor) -> Tensor:
        """[T] int32 -> [T, K]."""
        return self._embed(tokens, self.weight, self._scale)
