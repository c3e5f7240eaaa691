"""Where the inputs of projections come from: the ops of a backend, watched.

An output is known by being the very tensor that an op returned.
"""

from dataclasses import dataclass, replace

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.protocols import Activation, MatMul
from torch import Tensor

from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.layers.norm import Norm
from aphrodite_engine.quantizing.observed import Observed, ObservingBuilder


@dataclass(frozen=True, eq=False, slots=True)
class NormWeight:
    """The weight of a norm, by which its outputs are scaled."""

    name: str
    weight: Tensor
    """[K] float32, as it is applied."""
    offset: float
    """The part of it that is not stored."""


class Trace:
    """The last outputs of norms, projections and gates."""

    def __init__(self) -> None:
        self._norms: dict[int, NormWeight] = {}
        self._normed: tuple[Tensor, NormWeight | None] | None = None
        self._product: Tensor | None = None
        self._gated: tuple[Tensor, int] | None = None

    def add_norm(self, name: str, norm: Norm, offset: float) -> None:
        """A norm of the model."""
        self._norms[norm.weight.data_ptr()] = NormWeight(name, norm.weight, offset)

    def norm_before(self, x: Tensor) -> NormWeight | None:
        """The norm whose last output x is."""
        return self._normed[1] if self._normed is not None and self._normed[0] is x else None

    def gated_from(self, x: Tensor) -> int | None:
        """If x is what a gate let through: the first column, among those of the projection before,
        of the factor without activation.
        """
        return self._gated[1] if self._gated is not None and self._gated[0] is x else None

    def watching(self, backend: Backend, product: MatMul) -> Backend:
        """The backend, its ops watched; `product` is that of projections that are not there yet."""

        def watched_product(x: Tensor, weight: Observed, bias: Tensor | None = None) -> Tensor:
            self._product = product(x, weight, bias)
            return self._product

        def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
            normed = backend.rms_norm(x, weight, eps)
            self._normed = normed, self._norms.get(weight.data_ptr())
            return normed

        def add_rms_norm(
            update: Tensor, residual: Tensor, weight: Tensor, eps: float
        ) -> tuple[Tensor, Tensor]:
            normed, total = backend.add_rms_norm(update, residual, weight, eps)
            self._normed = normed, self._norms.get(weight.data_ptr())
            return normed, total

        def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
            result = backend.gated(gate, up, activation)
            self._gated = None
            if self._product is not None:
                column = (up.data_ptr() - self._product.data_ptr()) // up.element_size()
                if 0 <= column < self._product.shape[1]:
                    self._gated = result, column
            return result

        return replace(
            backend,
            matmul={**backend.matmul, Observed: watched_product},
            rms_norm=rms_norm,
            add_rms_norm=add_rms_norm,
            gated=gated,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingBuilder(ObservingBuilder):
    """Tells a trace which norms there are."""

    trace: Trace

    def norm(self, name: str, width: int, eps: float, *, offset: float = 0.0) -> Norm:
        """A norm whose outputs will be known."""
        made = Builder.norm(self, name, width, eps, offset=offset)
        self.trace.add_norm(f"{self.prefix}{name}.weight", made, offset)
        return made
