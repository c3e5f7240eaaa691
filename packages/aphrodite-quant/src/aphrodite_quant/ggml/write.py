"""A model as a GGUF file: each tensor in the type that a recipe gives it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from torch import Tensor

from aphrodite_quant.containers.gguf_header import MetadataValue
from aphrodite_quant.containers.gguf_writer import write_gguf
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError
from aphrodite_quant.ggml.encode import encode
from aphrodite_quant.ggml.recipe import Recipe

_QUANTIZATION_VERSION = 2
_OF_A_SPLIT = "split."
_HEAD = "output.weight"


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor under its GGUF name, not yet read."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    """Floating numbers of that shape."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a tensor."""

    name: str
    type: str
    matrix: tuple[int, int]
    """Rows and columns."""
    bytes: int
    error: float
    """Root of the summed squared error over that of the summed squares; 0 if it is exact."""


def sources_of(store: TensorStore) -> list[Source]:
    """The tensors of a GGUF file, to be written anew."""
    return [_source(store, name) for name in store.names()]


def write_model(
    path: Path,
    metadata: Mapping[str, MetadataValue],
    sources: Sequence[Source],
    recipe: Recipe,
    *,
    importance: Mapping[str, Tensor] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Written]:
    """Write the file; `metadata` are those of a model, and `importance` [K] that of some tensors.

    `progress` is called with tensors written and tensors in all.

    Raises:
        FormatError: weights that a type cannot hold; the message names the tensor.
        ContainerError: metadata that GGUF cannot hold.
    """
    kept = {key: value for key, value in metadata.items() if not key.startswith(_OF_A_SPLIT)}
    kept["general.file_type"] = recipe.file_type
    kept["general.quantization_version"] = _QUANTIZATION_VERSION
    infos = _infos(path, metadata, sources, recipe)
    by_name = {source.name: source for source in sources}
    written: list[Written] = []

    def data(info: TensorInfo) -> Tensor:
        counts = (importance or {}).get(info.name)
        packed, error = _packed(info, by_name[info.name].read(), counts)
        matrix = (math.prod(info.shape[:-1]), info.shape[-1])
        kind = str(info).partition(" ")[0]
        written.append(Written(info.name, kind, matrix, info.nbytes, error))
        progress(len(written), len(infos))
        return packed

    write_gguf(path, kept, infos, data)
    return written


def size_of(
    path: Path, metadata: Mapping[str, MetadataValue], sources: Sequence[Source], recipe: Recipe
) -> int:
    """Bytes of the tensors that `write_model` would write."""
    return sum(info.nbytes for info in _infos(path, metadata, sources, recipe))


def _infos(
    path: Path, metadata: Mapping[str, MetadataValue], sources: Sequence[Source], recipe: Recipe
) -> list[TensorInfo]:
    layers = metadata.get(f"{metadata.get('general.architecture')}.block_count", 0)
    count = layers if isinstance(layers, int) else 0
    tied = all(source.name != _HEAD for source in sources)
    return [
        TensorInfo(
            source.name,
            path,
            recipe.type_of(source.name, source.shape, layers=count, tied=tied),
            source.shape,
        )
        for source in sources
    ]


def _source(store: TensorStore, name: str) -> Source:
    info = store.info(name)

    def read() -> Tensor:
        tensor = store.read(name)
        if not isinstance(info.type, GgmlType):
            return tensor
        rows = GgmlBlocks(tensor.reshape(-1, tensor.shape[-1]), info.type)
        return rows.dequantize().view(info.shape)

    return Source(name, info.shape, read)


def _packed(info: TensorInfo, tensor: Tensor, importance: Tensor | None) -> tuple[Tensor, float]:
    """Bytes of a tensor in the type of `info`, and their relative error."""
    if not isinstance(info.type, GgmlType):
        narrow = tensor.to(info.type)
        return narrow, _relative_error(narrow.float(), tensor.float())
    rows = tensor.reshape(-1, info.shape[-1])
    try:
        blocks = encode(rows, info.type, importance)
    except FormatError as error:
        raise FormatError(f"tensor {info.name!r}: {error}") from error
    return blocks.data, _relative_error(blocks.dequantize(), rows.float())


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    size = float(wanted.square().sum())
    return math.sqrt(float((found - wanted).square().sum()) / size) if size else 0.0
