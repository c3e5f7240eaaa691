"""From a path to an opened checkpoint: which container, its config, its side files.

It knows nothing of models, nor of how weights are packed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from aphrodite_quant.containers.gguf import open_gguf, split_parts
from aphrodite_quant.containers.gguf_header import MetadataValue
from aphrodite_quant.containers.safetensors import open_index, open_safetensors
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import CheckpointError, listed
from aphrodite_quant.json_object import read_json_object

_INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, eq=False, slots=True)
class Checkpoint:
    """An opened checkpoint; nothing but headers has been read."""

    path: Path
    """As given: a file or a directory."""
    kind: Literal["gguf", "safetensors"]
    store: TensorStore
    config: Mapping[str, Any]
    """config.json of a directory; empty if it has none."""
    metadata: Mapping[str, MetadataValue]
    """Typed metadata of a GGUF file; empty for safetensors."""

    @property
    def quant_config(self) -> Mapping[str, Any] | None:
        """What config.json says of quantisation, if anything."""
        stated = self.config.get("quantization_config") or self.config.get("compression_config")
        if stated is not None and not isinstance(stated, dict):
            raise CheckpointError(f"{self.path}: quantization_config is {stated!r}, not an object")
        return cast("dict[str, Any] | None", stated)

    def side_file(self, name: str) -> Path | None:
        """A file of that name beside the weights of a directory; a lone file has none."""
        file = self.path / name
        return file if self.path.is_dir() and file.is_file() else None


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a .gguf file (of a split: the first) or a directory with safetensors or one GGUF.

    Raises:
        QuantError: nothing there, not weights, or weights that are corrupt.
    """
    path = Path(path)
    if path.is_dir():
        return _open_directory(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: give the directory, its config.json is needed too")
    if path.suffix in _PICKLES:
        raise _pickled(path)
    return _from_gguf(path, path)


def _open_directory(path: Path) -> Checkpoint:
    try:
        names = sorted(file.name for file in path.iterdir() if file.is_file())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be listed: {error.strerror}") from error
    if any(name.endswith(".safetensors") or name == _INDEX for name in names):
        return _from_safetensors(path, names)
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        return _from_gguf(path, _only_gguf(path, ggufs))
    for name in names:
        if name.endswith(_PICKLES):
            raise _pickled(path / name)
    found = listed(names) or "nothing"
    raise CheckpointError(f"{path} holds no weights (.safetensors or .gguf); found: {found}")


def _from_safetensors(path: Path, names: list[str]) -> Checkpoint:
    if "config.json" not in names:
        raise CheckpointError(f"{path} has safetensors but no config.json")
    config = read_json_object(path / "config.json")
    if _INDEX in names:
        store = open_index(path / _INDEX)
    else:
        weights = [name for name in names if name.endswith(".safetensors")]
        if "model.safetensors" not in weights and len(weights) > 1:
            raise CheckpointError(
                f"{path} has several safetensors files but no {_INDEX}: {listed(weights)}"
            )
        chosen = "model.safetensors" if "model.safetensors" in weights else weights[0]
        store = open_safetensors(path / chosen)
    return Checkpoint(path, "safetensors", store, config, {})


def _from_gguf(path: Path, file: Path) -> Checkpoint:
    store = open_gguf(file)
    side = path / "config.json"
    config = read_json_object(side) if side.is_file() else {}
    return Checkpoint(path, "gguf", store, config, store.metadata)


def _only_gguf(path: Path, names: list[str]) -> Path:
    """The one GGUF of a directory, or the first part of its one split."""
    first = path / names[0]
    if len(names) > 1 and {path / name for name in names} != set(split_parts(first)):
        raise CheckpointError(f"{path} has several GGUF files, name one: {listed(names)}")
    return first


def _pickled(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} holds pickled weights, which are not supported: convert them to safetensors"
    )
