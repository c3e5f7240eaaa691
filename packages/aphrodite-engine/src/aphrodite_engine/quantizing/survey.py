"""What a model consists of: projections that will be quantised, and all else, which stays."""

import re
from dataclasses import dataclass, field

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts import PackedWeight
from torch import Tensor

from aphrodite_engine.errors import ModelError
from aphrodite_engine.layers.builder import WeightSource
from aphrodite_engine.loading.model import OpenModel
from aphrodite_engine.quantizing.observed import Observed, ObservingBuilder, Projection

_BLOCK = re.compile(r"(.*\blayers\.\d+)\..*")
REST = ""
"""The block of what lies outside all blocks."""


def block_of(name: str) -> str:
    """The block that a module or tensor lies in: model.layers.7."""
    match = _BLOCK.fullmatch(name)
    return match[1] if match else REST


@dataclass(frozen=True, slots=True)
class Survey:
    """The parts of a model by their Hugging Face names, in the order of the model."""

    projections: tuple[Projection, ...]
    vectors: dict[str, tuple[int, ...]]
    """Norms and biases: tensors."""
    matrices: dict[str, tuple[int, int]]
    """Embedding and head: modules."""

    @property
    def blocks(self) -> list[str]:
        """Blocks that have projections; the rest comes last."""
        return [*dict.fromkeys(block_of(one.module) for one in self.projections), REST]

    def projections_in(self, block: str) -> list[Projection]:
        """The projections of one block."""
        return [one for one in self.projections if block_of(one.module) == block]

    def vectors_in(self, block: str) -> dict[str, tuple[int, ...]]:
        """The vectors of one block."""
        return {name: shape for name, shape in self.vectors.items() if block_of(name) == block}


@dataclass(frozen=True, slots=True)
class _Recorder:
    """A source of weights that writes down what it was asked for."""

    weights: WeightSource
    vectors: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    matrices: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight:
        self.matrices[name] = shape
        return self.weights.packed(name, shape)

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.vectors[name] = shape
        return self.weights.tensor(name, shape)


@dataclass(frozen=True, slots=True)
class _SurveyingBuilder(ObservingBuilder):
    """Remembers the projections."""

    found: list[Projection] = field(default_factory=list[Projection])

    def _projection(
        self, name: str, shape: tuple[int, int], *, bias: bool
    ) -> tuple[PackedWeight, Tensor | None]:
        weight, vector = ObservingBuilder._projection(self, name, shape, bias=bias)
        assert isinstance(weight, Observed), "made by the builder above"
        self.found.extend(weight.projections)
        return weight, vector


def survey_model(source: OpenModel, weights: WeightSource, backend: Backend) -> Survey:
    """Build the model without its projections.

    Raises:
        ModelError: it has none that could be quantised.
        QuantError: other tensors are missing or wrong.
    """
    recorder = _Recorder(weights)
    builder = _SurveyingBuilder(recorder, backend)
    source.config.build(builder, positions=1)
    if not builder.found:
        raise ModelError(f"{source.checkpoint.path} has no projections that could be quantised")
    return Survey(tuple(builder.found), recorder.vectors, recorder.matrices)
