"""Quantises each projection when calibration text reaches it.

The model runs once over all pieces of the text. At a projection its inputs are known, those that
the projections before it, already quantised, let through; it is quantised, and the pass goes on
with what came of it. In memory are the activations of one layer for all pieces, and one projection.
"""

from dataclasses import replace

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_quant import Statistics
from torch import Tensor

from aphrodite_engine.layers.builder import WeightSource
from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.quantizing.blocks import BlockWriter
from aphrodite_engine.quantizing.observed import Observed, ObservingBuilder
from aphrodite_engine.quantizing.sequences import input_of
from aphrodite_engine.quantizing.survey import REST, block_of

_ROWS = 4096
"""Inputs that are widened at a time."""


class _Source:
    """The weights as they are now: those of finished blocks may have changed."""

    def __init__(self, writer: BlockWriter) -> None:
        self._writer = writer

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight:
        return self._writer.weights.packed(name, shape)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        original = self._writer.weights.tensor(name, shape)
        block = block_of(name)
        if block == REST or block not in self._writer.output.finished:
            return original
        return self._writer.output.stored(block).read(name).to(original.device, torch.float32)


@torch.inference_mode()
def quantize_by_calibration(
    source: OpenModel, writer: BlockWriter, backend: Backend, pieces: Tensor
) -> None:
    """Run the texts [B, L] through the model, and quantise what they reach.

    Raises:
        QuantError: a weight is missing, wrong, or cannot be packed.
    """

    def product(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Observed), f"bound to {type(weight).__name__}"
        packed = _quantized(writer, weight, x)
        dense = torch.cat([one.dequantize(backend.dtype) for one in packed])
        return backend.matmul_for(Dense(dense))(x, Dense(dense), bias)

    observing = replace(backend, matmul={**backend.matmul, Observed: product})
    weights: WeightSource = _Source(writer)
    model = source.config.build(ObservingBuilder(weights, observing), pieces.shape[1])
    model.forward(input_of(pieces, source.config, observing))


def _quantized(writer: BlockWriter, weight: Observed, x: Tensor) -> list[PackedWeight]:
    """The projections of one input, from the disk if their block is finished."""
    block = block_of(weight.projections[0].module)
    if block in writer.output.finished:
        return [writer.stored(projection).to(x.device) for projection in weight.projections]
    statistics = statistics_of(x)
    packed = [
        writer.quantize(projection, writer.dense(projection), statistics)
        for projection in weight.projections
    ]
    writer.write_if_whole(block)
    return packed


def statistics_of(x: Tensor) -> Statistics:
    """Of inputs [T, K]."""
    count, width = x.shape
    hessian = torch.zeros(width, width, dtype=torch.float32, device=x.device)
    magnitude = torch.zeros(width, dtype=torch.float32, device=x.device)
    for start in range(0, count, _ROWS):
        wide = x[start : start + _ROWS].float()
        hessian.addmm_(wide.T, wide)
        magnitude += wide.abs().sum(0)
    return Statistics(hessian.div_(count), magnitude.div_(count))
