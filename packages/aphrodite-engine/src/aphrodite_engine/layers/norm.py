"""Root-mean-square norms."""

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.protocols import Inputs
from aphrodite_kernels.rounded import Rows
from torch import Tensor


class Norm:
    """x / rms(x) * weight, alone or behind the residual addition."""

    def __init__(self, backend: Backend, weight: Tensor, eps: float) -> None:
        self.weight = weight.to(backend.device)
        """[K] float32, as it is applied."""
        self.eps = eps
        self._norm = backend.rms_norm
        self._add_norm = backend.add_rms_norm

    def __call__(self, x: Tensor) -> Tensor:
        """Norm over the last dimension of [T, K] or [T, H, D]."""
        return self._norm(x, self.weight, self.eps)

    def add(self, update: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(norm(sum), sum) of update and residual [T, K]; None: the first block, nothing to add."""
        if residual is None:
            return self(update), update
        return self._add_norm(update, residual, self.weight, self.eps)

    def into(self, inputs: Inputs) -> "NormInto":
        """The same norm, of which nothing but one product wants the result."""
        return NormInto(self, inputs)


class NormInto:
    """A norm whose result may come in the form in which the product behind it takes it."""

    def __init__(self, norm: Norm, inputs: Inputs) -> None:
        self._norm = norm
        self._add_norm = inputs.add_rms_norm

    def add(self, update: Tensor, residual: Tensor | None) -> tuple[Rows, Tensor]:
        """As Norm.add."""
        if residual is None:
            return self._norm.add(update, residual)
        return self._add_norm(update, residual, self._norm.weight, self._norm.eps)
