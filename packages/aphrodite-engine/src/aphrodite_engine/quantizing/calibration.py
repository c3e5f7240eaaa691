"""Quantises each projection when calibration text reaches it.

The model runs once over all pieces of the text. At a projection its inputs are known, those that
the projections before it, already quantised, let through; it is quantised, and the pass goes on
with what came of it. In memory are the activations of one layer for all pieces, and the projections
of one input.

A quantiser that balances weights against their inputs has the inputs divided where they are made:
by the norm before, or by the rows of `up` before `down`. So projections of a norm's output wait
until the next projection, with which `up` may be balanced; until then the pass goes on with what
they were.
"""

from dataclasses import dataclass

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_quant import Statistics
from torch import Tensor

from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.quantizing.blocks import BlockWriter
from aphrodite_engine.quantizing.observed import Observed, Projection
from aphrodite_engine.quantizing.sequences import input_of
from aphrodite_engine.quantizing.survey import REST, block_of
from aphrodite_engine.quantizing.trace import NormWeight, Trace, TracingBuilder

_ROWS = 4096
"""Inputs that are widened at a time."""


@torch.inference_mode()
def quantize_by_calibration(
    source: OpenModel, writer: BlockWriter, backend: Backend, pieces: Tensor
) -> None:
    """Run the texts [B, L] through the model, and quantise what they reach.

    Raises:
        QuantError: a weight is missing, wrong, or cannot be packed.
    """
    trace = Trace()
    calibration = _Calibration(writer, backend, trace)
    watching = trace.watching(backend, calibration.product)
    builder = TracingBuilder(_Source(writer), watching, trace=trace)
    model = source.config.build(builder, pieces.shape[1])
    model.forward(input_of(pieces, source.config, watching))
    calibration.settle()


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


@dataclass(frozen=True, eq=False, slots=True)
class _Group:
    """Projections of one input, about to be quantised."""

    projections: tuple[Projection, ...]
    weights: list[Tensor]
    """[N, K] float32, changed when they are balanced."""
    statistics: Statistics

    @property
    def block(self) -> str:
        return block_of(self.projections[0].module)

    def balanced(self, factors: Tensor) -> "_Group":
        """For inputs that are divided by `factors`."""
        weights = [weight * factors for weight in self.weights]
        return _Group(self.projections, weights, self.statistics.divided_by(factors))


class _Calibration:
    """Quantises what the model asks products of."""

    def __init__(self, writer: BlockWriter, backend: Backend, trace: Trace) -> None:
        self._writer = writer
        self._backend = backend
        self._trace = trace
        self._waiting: _Group | None = None
        self._divided: tuple[Tensor, Tensor] | None = None
        """The last output of a norm that was balanced, and by what it is divided."""

    def product(self, x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        """What the projections give, quantised if they do not wait."""
        assert isinstance(weight, Observed), f"bound to {type(weight).__name__}"
        group = self._group(x, weight.projections)
        if group is None:
            self.settle()
            stored = [self._writer.stored(one).to(x.device) for one in weight.projections]
            return self._multiplied(x, [one.dequantize() for one in stored], bias)
        factors = self._balance(x, group)
        waits = self._writer.quantizer.balances and self._trace.norm_before(x) is not None
        if factors is not None:
            group, x = group.balanced(factors), (x / factors).to(x.dtype)
        if waits:
            self._waiting = group
            return self._multiplied(x, group.weights, bias)
        return self._multiplied(x, self._quantize(group), bias)

    def settle(self) -> None:
        """Quantise what waits."""
        if self._waiting is not None:
            self._quantize(self._waiting)
            self._waiting = None

    def _group(self, x: Tensor, projections: tuple[Projection, ...]) -> _Group | None:
        """None: their block is written."""
        if block_of(projections[0].module) in self._writer.output.finished:
            return None
        return _Group(
            projections, [self._writer.dense(one) for one in projections], statistics_of(x)
        )

    def _quantize(self, group: _Group) -> list[Tensor]:
        """The weights as they come back from the disk."""
        packed = [
            self._writer.quantize(projection, weight, group.statistics)
            for projection, weight in zip(group.projections, group.weights, strict=True)
        ]
        self._writer.write_if_whole(group.block)
        return [one.dequantize() for one in packed]

    def _multiplied(self, x: Tensor, weights: list[Tensor], bias: Tensor | None) -> Tensor:
        dense = Dense(torch.cat(weights).to(self._backend.dtype))
        return self._backend.matmul_for(dense)(x, dense, bias)

    def _balance(self, x: Tensor, group: _Group) -> Tensor | None:
        """By what x is divided, once that is done where it is made; nothing waits afterwards."""
        quantizer, norm = self._writer.quantizer, self._trace.norm_before(x)
        column = None if self._waiting is None else self._trace.gated_from(x)
        if not quantizer.balances or (norm is None and column is None):
            self.settle()
            return None
        if norm is not None:
            self.settle()
            return self._divide_norm(x, norm, group)
        factors = None
        index = self._rows_at(column, x.shape[1])
        if index is not None and self._waiting is not None:
            factors = quantizer.balance(group.weights, group.statistics)
            if factors is not None:
                self._waiting.weights[index] /= factors[:, None]
        self.settle()
        return factors

    def _divide_norm(self, x: Tensor, norm: NormWeight, group: _Group) -> Tensor | None:
        """As for the first projections of the same output, if there were others."""
        if self._divided is not None and self._divided[0] is x:
            return self._divided[1]
        factors = self._writer.quantizer.balance(group.weights, group.statistics)
        if factors is None:
            factors = torch.ones_like(norm.weight)
        self._divided = x, factors
        self._writer.set_vector(norm.name, norm.weight / factors - norm.offset)
        return factors

    def _rows_at(self, column: int | None, width: int) -> int | None:
        """Which of the waiting projections begins there; None if it has a bias or another size."""
        first = 0
        for index, one in enumerate(self._waiting.projections if self._waiting else ()):
            if first == column:
                biased = f"{one.module}.bias" in self._writer.survey.vectors
                return None if biased or one.shape[0] != width else index
            first += one.shape[0]
        return None


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
