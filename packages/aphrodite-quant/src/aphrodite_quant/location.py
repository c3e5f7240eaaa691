"""From a path to the files of a checkpoint: which container, which file comes first.

Nothing but directories and the head of a GGUF file is read here, and torch is not needed: a process
that only wants the tokenizer of a model stays small.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from aphrodite_quant.containers.gguf_header import MetadataValue, read_header
from aphrodite_quant.containers.gguf_parts import split_parts
from aphrodite_quant.containers.weight_file import map_file, refuse_impostors
from aphrodite_quant.errors import CheckpointError, listed
from aphrodite_quant.json_object import read_json_object

INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True, slots=True)
class Location:
    """Where a checkpoint lies."""

    path: Path
    """As given: a file or a directory."""
    kind: Literal["gguf", "safetensors"]
    file: Path
    """To open first: a GGUF file (of a split: the first), an index, or a safetensors file."""

    def weight_files(self) -> tuple[Path, ...]:
        """All files that hold weights, as far as an index that may be wrong tells.

        Raises:
            QuantError: the index is no JSON object, or parts of a split are missing.
        """
        if self.kind == "gguf":
            return split_parts(self.file)
        if self.file.name != INDEX:
            return (self.file,)
        shards = read_json_object(self.file).get("weight_map")
        if not isinstance(shards, dict):
            return ()
        names = {str(name) for name in cast("dict[str, object]", shards).values()}
        return tuple(self.path / name for name in sorted(names))

    def check_files(self) -> None:
        """CheckpointError if a file of weights is missing, empty or evidently something else."""
        for file in self.weight_files():
            refuse_impostors(file)

    def read_metadata(self) -> Mapping[str, MetadataValue]:
        """Typed metadata of a GGUF file; empty for safetensors.

        Raises:
            QuantError: the file is not GGUF, or corrupt.
        """
        if self.kind != "gguf":
            return {}
        refuse_impostors(self.file)
        with map_file(self.file) as mapped:
            return read_header(mapped, self.file).metadata


def find_weights(path: Path | str) -> Location:
    """Find what to open at the path of a .gguf file or of a directory.

    Raises:
        CheckpointError: nothing there, or nothing that is supported.
    """
    path = Path(path)
    if path.is_dir():
        return _in_directory(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist")
    if path.suffix == ".safetensors":
        raise CheckpointError(f"{path}: give the directory, its config.json is needed too")
    if path.suffix in _PICKLES:
        raise _pickled(path)
    return Location(path, "gguf", path)


def _in_directory(path: Path) -> Location:
    try:
        names = sorted(file.name for file in path.iterdir() if file.is_file())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be listed: {error.strerror}") from error
    if any(name.endswith(".safetensors") or name == INDEX for name in names):
        return Location(path, "safetensors", _first_safetensors(path, names))
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        return Location(path, "gguf", _only_gguf(path, ggufs))
    for name in names:
        if name.endswith(_PICKLES):
            raise _pickled(path / name)
    found = listed(names) or "nothing"
    raise CheckpointError(f"{path} holds no weights (.safetensors or .gguf); found: {found}")


def _first_safetensors(path: Path, names: list[str]) -> Path:
    if "config.json" not in names:
        raise CheckpointError(f"{path} has safetensors but no config.json")
    if INDEX in names:
        return path / INDEX
    weights = [name for name in names if name.endswith(".safetensors")]
    if "model.safetensors" not in weights and len(weights) > 1:
        raise CheckpointError(
            f"{path} has several safetensors files but no {INDEX}: {listed(weights)}"
        )
    return path / ("model.safetensors" if "model.safetensors" in weights else weights[0])


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
