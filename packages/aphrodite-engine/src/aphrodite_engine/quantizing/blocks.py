"""Quantises the projections of a model in their order, and writes each block when it is whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_quant import Checkpoint, Quantizer, Reader, Statistics, TensorStore, find_format
from aphrodite_quant.containers.memory import MemoryStore
from torch import Tensor

from aphrodite_engine.layers.builder import WeightSource
from aphrodite_engine.quantizing.observed import Projection
from aphrodite_engine.quantizing.output import Output
from aphrodite_engine.quantizing.report import ModuleRecord
from aphrodite_engine.quantizing.survey import REST, Survey, block_of


def reader_of(path: Path, quantizer: Quantizer, plain: Sequence[str]) -> Reader:
    """How an engine will read what the quantiser writes."""
    config = {"quantization_config": quantizer.config(plain)}
    checkpoint = Checkpoint(path, "safetensors", MemoryStore(path, {}), config, {})
    return find_format(checkpoint).reader(checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockWriter:
    """From weights to files; every weight is read back as an engine will read it."""

    weights: WeightSource
    quantizer: Quantizer
    read: Reader
    survey: Survey
    output: Output
    dtype: torch.dtype
    """Of what stays as it is."""
    device: torch.device
    progress: Callable[[], None]
    """Called after each projection."""
    _tensors: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Of the block under way."""
    _records: list[ModuleRecord] = field(default_factory=list[ModuleRecord])

    def dense(self, projection: Projection) -> Tensor:
        """The weight [N, K] float32 as the source has it."""
        weight = self.weights.packed(projection.module, projection.shape)
        return weight.to(self.device).dequantize()

    def quantize(
        self, projection: Projection, weight: Tensor, statistics: Statistics | None
    ) -> PackedWeight:
        """The weight as it is now on disk, or will be with its block."""
        module = projection.module
        made = self.quantizer.quantize(weight, statistics)
        tensors = {f"{module}.{name}": tensor for name, tensor in made.items()}
        packed = self._unpadded(MemoryStore(self.output.path, tensors), projection)
        self._tensors.update({name: tensor.cpu() for name, tensor in tensors.items()})
        self._records.append(_record(projection, weight, packed.dequantize(), statistics))
        self.progress()
        return packed

    def set_vector(self, name: str, value: Tensor) -> None:
        """A vector of the block under way that is not as the source has it."""
        self._tensors[name] = value.to(self.dtype).cpu()

    def write_if_whole(self, block: str) -> None:
        """Write the block under way if all its projections are quantised."""
        if len(self._records) < len(self.survey.projections_in(block)):
            return
        for name, shape in self.survey.vectors_in(block).items():
            if name not in self._tensors:
                self.set_vector(name, self.weights.tensor(name, shape))
        self.output.write(block, self._tensors, list(self._records))
        self._tensors.clear()
        self._records.clear()

    def stored(self, projection: Projection) -> PackedWeight:
        """A weight of a block that is written; the source's counts as read."""
        self.weights.packed(projection.module, projection.shape)
        self.progress()
        return self._unpadded(self.output.stored(block_of(projection.module)), projection)

    def _unpadded(self, store: TensorStore, projection: Projection) -> PackedWeight:
        weight = self.read(store, projection.module)
        found = (weight.out_features, weight.in_features)
        return weight if found == projection.shape else weight.cropped(*projection.shape)

    def skip(self, block: str) -> None:
        """A block that is written: what the source has of it counts as read."""
        for projection in self.survey.projections_in(block):
            self.weights.packed(projection.module, projection.shape)
            self.progress()
        for name, shape in self.survey.vectors_in(block).items():
            self.weights.tensor(name, shape)

    def write_rest(self) -> None:
        """What lies outside the blocks."""
        tensors = {
            f"{module}.weight": self.weights.packed(module, shape).dequantize(self.dtype)
            for module, shape in self.survey.matrices.items()
        }
        for name, shape in self.survey.vectors_in(REST).items():
            tensors[name] = self.weights.tensor(name, shape).to(self.dtype)
        self.output.write(REST, tensors, [])


def quantize_alone(writer: BlockWriter) -> None:
    """Every projection by itself, for quantisers that need no statistics."""
    for block in writer.survey.blocks:
        if block in writer.output.finished:
            writer.skip(block)
            continue
        for projection in writer.survey.projections_in(block):
            writer.quantize(projection, writer.dense(projection), None)
            writer.write_if_whole(block)


def _record(
    projection: Projection, weight: Tensor, packed: Tensor, statistics: Statistics | None
) -> ModuleRecord:
    lost = packed.to(weight.device) - weight
    output_error = None
    if statistics is not None:
        output_error = (_energy(lost, statistics) / _energy(weight, statistics)) ** 0.5
    return ModuleRecord(
        module=projection.module,
        shape=projection.shape,
        error=float(lost.square().sum() / weight.square().sum().clamp(min=1e-30)) ** 0.5,
        output_error=output_error,
    )


def _energy(weight: Tensor, statistics: Statistics) -> float:
    """Mean of |x Wᵀ|² over the inputs."""
    return max(float(((weight @ statistics.hessian) * weight).sum()), 1e-30)
