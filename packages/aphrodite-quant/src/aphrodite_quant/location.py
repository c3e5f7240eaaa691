"""From a path to the files of a checkpoint: which container, which file comes first.

Nothing but directories and the head of a GGUF file is read here, and torch is not needed: a process
that only wants the tokenizer of a model stays small.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from aphrodite_quant.containers.gguf_header import MetadataValue, read_header
from aphrodite_quant.containers.parts import split_parts
from aphrodite_quant.containers.shards import is_beside
from aphrodite_quant.containers.weight_file import map_file, refuse_impostors
from aphrodite_quant.errors import CheckpointError, listed
from aphrodite_quant.json_object import read_json_object

INDEX = "model.safetensors.index.json"
PICKLED_INDEX = "pytorch_model.bin.index.json"
_PICKLED = "pytorch_model.bin"
_PICKLES = (".bin", ".pt", ".pth")
_NO_WEIGHTS = (
    "training_args.bin",
    "optimizer.bin",
    "scheduler.bin",
    "optimizer.pt",
    "scheduler.pt",
)
"""What training leaves beside pickled weights."""

Kind = Literal["gguf", "safetensors", "pickle"]
"""A container: a pickle is what torch saves."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a checkpoint lies."""

    path: Path
    """As given: a file or a directory."""
    kind: Kind
    file: Path
    """To open first: an index, or the only file (of a split without an index: the first)."""

    @property
    def is_index(self) -> bool:
        """Whether `file` says which other files hold what."""
        return self.file.name in (INDEX, PICKLED_INDEX)

    def weight_files(self) -> tuple[Path, ...]:
        """All files that hold weights, as far as an index that may be wrong tells.

        Raises:
            QuantError: the index is no JSON object, or parts of a split are missing.
        """
        if not self.is_index:
            return split_parts(self.file)
        shards = read_json_object(self.file).get("weight_map")
        if not isinstance(shards, dict):
            return ()
        names = {name for name in cast("dict[str, object]", shards).values() if is_beside(name)}
        return tuple(self.path / name for name in sorted(names))

    def check_files(self) -> None:
        """CheckpointError if a file of weights is missing, empty or evidently something else."""
        for file in self.weight_files():
            refuse_impostors(file, pickled=self.kind == "pickle")

    def read_metadata(self) -> Mapping[str, MetadataValue]:
        """Typed metadata of a GGUF file; empty for other kinds.

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
    if path.suffix in (".safetensors", *_PICKLES):
        raise CheckpointError(f"{path}: give the directory, its config.json is needed too")
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
    pickles = [name for name in names if name.endswith(_PICKLES) and name not in _NO_WEIGHTS]
    if pickles or PICKLED_INDEX in names:
        return Location(path, "pickle", _first_pickle(path, names, pickles))
    found = listed(names) or "nothing"
    raise CheckpointError(f"{path} holds no weights (.safetensors, .gguf or .bin); found: {found}")


def _first_safetensors(path: Path, names: list[str]) -> Path:
    weights = [name for name in names if name.endswith(".safetensors")]
    return _first(path, names, weights, "model.safetensors", INDEX)


def _first_pickle(path: Path, names: list[str], pickles: list[str]) -> Path:
    return _first(path, names, pickles, _PICKLED, PICKLED_INDEX)


def _first(path: Path, names: list[str], weights: list[str], usual: str, index: str) -> Path:
    """The index, the file of the usual name, the only one, or the first of all parts of one."""
    if "config.json" not in names:
        raise CheckpointError(f"{path} has {listed(weights) or index} but no config.json")
    if index in names:
        return path / index
    file = path / (usual if usual in weights else weights[0])
    if usual not in weights and {path / name for name in weights} != set(split_parts(file)):
        raise CheckpointError(
            f"{path} has several files of weights but no {index}: {listed(weights)}"
        )
    return file


def _only_gguf(path: Path, names: list[str]) -> Path:
    """The one GGUF of a directory, or the first part of its one split."""
    first = path / names[0]
    if len(names) > 1 and {path / name for name in names} != set(split_parts(first)):
        raise CheckpointError(f"{path} has several GGUF files, name one: {listed(names)}")
    return first
