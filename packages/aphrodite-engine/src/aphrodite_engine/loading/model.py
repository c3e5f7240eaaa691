"""From a path to a model: open it (headers only), then load it.

Opening reads the configuration and states what the weights take, so that a context and a KV cache
can be chosen, or refused, before anything large is read. Loading is a stream: each layer is made
whole from its weights before the next is read. Beyond the page cache and the weights as the backend
keeps them, memory in use is at most two copies of one stacked group (q, k, v or gate, up) or one of
the head; for a device it is the device's, and the host's is two buffers (upload.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_quant import (
    Checkpoint,
    TensorStore,
    Weights,
    find_format,
    find_quantization,
    format_name,
    open_checkpoint,
    quantization_names,
    stated_kv_cache,
)

from aphrodite_engine.keys import Keys
from aphrodite_engine.layers.builder import Builder, WeightSource
from aphrodite_engine.loading.gguf import GgufModel, GgufWeights, read_gguf
from aphrodite_engine.loading.resolve import ModelFacts
from aphrodite_engine.loading.upload import read_to
from aphrodite_engine.loading.weights import RecordingStore, loaded_bytes
from aphrodite_engine.model import Model, ModelConfig
from aphrodite_engine.models import find_model

Progress = Callable[[int, int], None]
"""Called with bytes read and bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenModel:
    """A checkpoint whose model is known; no weight has been read."""

    checkpoint: Checkpoint
    model_type: str
    config: ModelConfig
    gguf: GgufModel | None
    """None: a Hugging Face directory."""
    quantization: str | None = None
    """What plain weights become while they are loaded."""

    @property
    def format(self) -> str:
        """The quantisation format of the checkpoint."""
        return format_name(self.checkpoint)

    @property
    def facts(self) -> ModelFacts:
        """What planning needs to know."""
        return ModelFacts(
            path=str(self.checkpoint.path),
            format=self.format,
            weight_bytes=loaded_bytes(self.checkpoint.store, self.quantization),
            config=self.config,
            quantization=self.quantization,
            kv_cache=stated_kv_cache(self.checkpoint),
        )

    def quantized(self, name: str | None) -> "OpenModel":
        """The same, its plain weights quantised while they are loaded, if there is such a way."""
        if name in quantization_names() and self.format == "dense":
            return replace(self, quantization=name)
        return self


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run, and where it came from."""

    source: OpenModel
    model: Model
    backend: Backend


def open_model(path: Path) -> OpenModel:
    """Read the configuration of a GGUF file or a Hugging Face directory.

    Raises:
        ModelError: not a model that is supported, or its configuration is wrong.
        QuantError: not a checkpoint, or a corrupt one.
    """
    return model_of(open_checkpoint(path))


def model_of(checkpoint: Checkpoint) -> OpenModel:
    """Read the configuration of a checkpoint that is open.

    Raises:
        ModelError: not a model that is supported, or its configuration is wrong.
    """
    path = checkpoint.path
    if checkpoint.kind == "gguf":
        gguf = read_gguf(checkpoint)
        keys = Keys(gguf.config, f"{path}: metadata")
    else:
        gguf = None
        keys = Keys(checkpoint.config, str(path / "config.json"))
    model_type = keys.text("model_type")
    config = find_model(model_type).read(keys)
    return OpenModel(checkpoint=checkpoint, model_type=model_type, config=config, gguf=gguf)


def load_model(
    source: OpenModel, backend: Backend, positions: int, progress: Progress
) -> LoadedModel:
    """Build the model from its weights, for contexts of up to `positions` tokens.

    Raises:
        ModelError: tensors are left over.
        QuantError: tensors are missing or wrong.
    """
    recorded = RecordingStore(source.checkpoint.store, progress)
    with read_to(backend.device, recorded) as store:
        builder = Builder(weights_of(source, store), backend, quantize=_quantize(source))
        model = source.config.build(builder, positions)
    recorded.check_all_read(tied_head=source.config.tied)
    return LoadedModel(source, model, backend)


def _quantize(source: OpenModel) -> Callable[[Dense], PackedWeight] | None:
    name = source.quantization
    return None if name is None else find_quantization(name).quantize


def weights_of(source: OpenModel, store: TensorStore) -> WeightSource:
    """The tensors of a store under their Hugging Face names, as the model wants them."""
    read = find_format(source.checkpoint).reader(source.checkpoint)
    if source.gguf is None:
        return Weights(store, read)
    return GgufWeights(Weights(store, read, source.gguf.stored_name), source.gguf)
