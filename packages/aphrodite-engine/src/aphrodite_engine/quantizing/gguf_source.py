"""What a GGUF file of a model contains, before types are chosen: metadata and tensors.

Those of a GGUF file pass through. Those of a directory are renamed, and what files of the dialect
have otherwise is done to them: rows of q and k interleaved, offsets of norms added. The result is
read as a file would be, and refused if the model would be another.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_quant import Checkpoint, MetadataValue, TensorInfo
from aphrodite_quant.ggml.write import Source, sources_of
from torch import Tensor

from aphrodite_engine.errors import ModelError
from aphrodite_engine.layers.builder import WeightSource
from aphrodite_engine.loading.gguf import NORM, ROPE_FACTORS, halves, stored_name
from aphrodite_engine.loading.model import OpenModel, model_of, weights_of
from aphrodite_engine.loading.text import TextModel
from aphrodite_engine.model import GgufDialect
from aphrodite_engine.models import find_model
from aphrodite_engine.quantizing.gguf_keys import Decoder, check_same, metadata_of, rope_factors
from aphrodite_engine.quantizing.survey import Survey, survey_model
from aphrodite_engine.text.gguf_metadata import tokenizer_metadata


@dataclass(frozen=True, slots=True)
class GgufContents:
    """Metadata, and tensors that are read when they are written."""

    metadata: Mapping[str, MetadataValue]
    tensors: Sequence[Source]
    stored_name: Callable[[str], str | None]
    """From a module's Hugging Face name to that in the file."""


def gguf_contents(source: OpenModel, text: TextModel, backend: Backend) -> GgufContents:
    """Of a GGUF file or of a Hugging Face directory.

    Raises:
        ModelError: the model, or its tokenizer, is one that GGUF cannot say.
        QuantError: tensors are missing or wrong.
    """
    checkpoint = source.checkpoint
    if source.gguf is not None:
        tensors = sources_of(checkpoint.store)
        return GgufContents(checkpoint.metadata, tensors, source.gguf.stored_name)
    dialect, config = _dialect(source), source.config
    assert isinstance(config, Decoder), "every model that has a dialect is one"
    weights = weights_of(source, checkpoint.store)
    survey = survey_model(source, weights, backend)
    tensors = _tensors(survey, weights, dialect, config.head_dim)
    if (factors := rope_factors(config.rope)) is not None:
        tensors.append(Source(ROPE_FACTORS, tuple(factors.shape), lambda: factors))
    path = checkpoint.path
    metadata: dict[str, MetadataValue] = {
        "general.architecture": dialect.architecture,
        "general.type": "model",
        "general.name": path.resolve().name,
        **metadata_of(config, dialect),
        **tokenizer_metadata(text.tokenizer, text.template.source, config.vocab_size),
    }
    store = _Planned(path, {tensor.name: tensor for tensor in tensors})
    again = model_of(Checkpoint(path, "gguf", store, {}, metadata))
    check_same(config, again.config, str(path))
    return GgufContents(metadata, tensors, partial(stored_name, dialect))


def _dialect(source: OpenModel) -> GgufDialect:
    architecture = find_model(source.model_type)
    if architecture.gguf is None and architecture.gguf_as is not None:
        architecture = find_model(architecture.gguf_as)
    if architecture.gguf is None:
        raise ModelError(
            f"{source.checkpoint.path}: models of type {source.model_type} are not written as GGUF"
        )
    return architecture.gguf


def _tensors(
    survey: Survey, weights: WeightSource, dialect: GgufDialect, head_dim: int
) -> list[Source]:
    matrices = survey.matrices | {one.module: one.shape for one in survey.projections}
    found: list[Source] = []
    for module, shape in matrices.items():
        read = partial(_matrix, weights, module, shape, dialect, head_dim)
        found.append(Source(_renamed(dialect, f"{module}.weight"), shape, read))
    for name, shape in survey.vectors.items():
        read = partial(_vector, weights, name, shape, dialect, head_dim)
        found.append(Source(_renamed(dialect, name), shape, read))
    return found


def _renamed(dialect: GgufDialect, name: str) -> str:
    module, _, leaf = name.rpartition(".")
    stored = stored_name(dialect, module)
    if stored is None:
        raise ModelError(f"tensor {name!r} has no name in GGUF files of {dialect.architecture}")
    return f"{stored}.{leaf}"


def _matrix(
    weights: WeightSource,
    module: str,
    shape: tuple[int, int],
    dialect: GgufDialect,
    head_dim: int,
) -> Tensor:
    dense = weights.packed(module, shape).dequantize()
    return dense[_pairs(len(dense), head_dim)] if module.endswith(dialect.permuted) else dense


def _vector(
    weights: WeightSource,
    name: str,
    shape: tuple[int, ...],
    dialect: GgufDialect,
    head_dim: int,
) -> Tensor:
    vector = weights.tensor(name, shape)
    if name.removesuffix(".bias").endswith(dialect.permuted):
        return vector[_pairs(len(vector), head_dim)]
    return vector + dialect.norm_offset if NORM.fullmatch(name) else vector


def _pairs(rows: int, head_dim: int) -> Tensor:
    """Row numbers that interleave the halves a, b of every head: a0 b0 a1 b1 …"""
    return halves(rows, head_dim, torch.device("cpu")).argsort()


@dataclass(frozen=True, slots=True)
class _Planned:
    """The tensors to be written, as a store in which all are float32."""

    path: Path
    sources: Mapping[str, Source]

    def names(self) -> Collection[str]:
        return self.sources.keys()

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(name, self.path, torch.float32, self.sources[name].shape)

    def read(self, name: str) -> Tensor:
        return self.sources[name].read().float()
