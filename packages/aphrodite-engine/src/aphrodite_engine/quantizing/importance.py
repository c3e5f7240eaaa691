"""How much each input of each projection counts: the mean square of what text brings there."""

from dataclasses import dataclass, field, replace

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts import Dense, PackedWeight
from torch import Tensor

from aphrodite_engine.layers.builder import WeightSource
from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.quantizing.observed import Observed, ObservingBuilder
from aphrodite_engine.quantizing.sequences import input_of


@dataclass(frozen=True, slots=True)
class _Squares:
    """The product of projections that are read when they are needed, and remembers its inputs."""

    weights: WeightSource
    backend: Backend
    found: dict[str, Tensor] = field(default_factory=dict[str, Tensor])

    def __call__(self, x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Observed), f"bound to {type(weight).__name__}"
        squares = x.float().square().mean(0).cpu()
        rows: list[Tensor] = []
        for projection in weight.projections:
            self.found[projection.module] = squares
            packed = self.weights.packed(projection.module, projection.shape)
            rows.append(packed.to(self.backend.device).dequantize(self.backend.dtype))
        dense = Dense(torch.cat(rows))
        return self.backend.matmul_for(dense)(x, dense, bias)


@torch.inference_mode()
def importance_of(
    source: OpenModel, weights: WeightSource, backend: Backend, pieces: Tensor
) -> dict[str, Tensor]:
    """Of every projection, by its Hugging Face name, [K] float32, over texts [B, L]."""
    squares = _Squares(weights, backend)
    observing = replace(backend, matmul={**backend.matmul, Observed: squares})
    model = source.config.build(ObservingBuilder(weights, observing), pieces.shape[1])
    model.forward(input_of(pieces, source.config, observing))
    return squares.found
