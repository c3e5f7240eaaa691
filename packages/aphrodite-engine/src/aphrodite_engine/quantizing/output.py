"""The directory that is written: one safetensors file for each block, a manifest of those that are
finished, and at the end an index.

A file is written under another name and renamed when it is whole, and only then stands in the
manifest; so a run that was killed goes on behind the last block it finished.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aphrodite_quant import TensorInfo, TensorStore
from aphrodite_quant.containers.safetensors import open_safetensors, write_safetensors
from aphrodite_quant.location import INDEX
from torch import Tensor

from aphrodite_engine.errors import ConfigError
from aphrodite_engine.quantizing.report import ModuleRecord

MANIFEST = "quantize-progress.json"


class _Manifest(msgspec.Struct):
    job: dict[str, Any]
    """What was asked for, of what."""
    finished: dict[str, list[ModuleRecord]]
    """Of each block that is written."""


@dataclass(frozen=True, slots=True)
class Output:
    """A directory in the making."""

    path: Path
    blocks: Sequence[str]
    _manifest: _Manifest

    @classmethod
    def open(
        cls, path: Path, blocks: Sequence[str], job: dict[str, Any], *, overwrite: bool
    ) -> "Output":
        """Begin, or go on with what the same job left.

        Raises:
            ConfigError: the directory holds something else.
        """
        manifest = _Manifest(job, {})
        if path.exists() and overwrite:
            _remove(path)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            manifest = _unfinished(path, job)
        output = cls(path, blocks, manifest)
        path.mkdir(parents=True, exist_ok=True)
        output._write_manifest()
        return output

    @property
    def finished(self) -> Mapping[str, list[ModuleRecord]]:
        """What is written: of each block, its projections."""
        return self._manifest.finished

    def file_of(self, block: str) -> Path:
        """Where a block lies."""
        number = self.blocks.index(block) + 1
        return self.path / f"model-{number:05}-of-{len(self.blocks):05}.safetensors"

    def stored(self, block: str) -> TensorStore:
        """The tensors of a block that is finished."""
        return open_safetensors(self.file_of(block))

    def write(self, block: str, tensors: dict[str, Tensor], records: list[ModuleRecord]) -> None:
        """Finish a block."""
        file = self.file_of(block)
        partial = file.with_suffix(".partial")
        write_safetensors(partial, tensors)
        partial.replace(file)
        self._manifest.finished[block] = records
        self._write_manifest()

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """A side file."""
        text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
        (self.path / name).write_text(text + "\n", encoding="utf-8")

    def tensors(self) -> list[TensorInfo]:
        """What is written, all blocks being finished."""
        stores = [self.stored(block) for block in self.blocks]
        return [store.info(name) for store in stores for name in store.names()]

    def close(self) -> int:
        """Write the index, forget the manifest; the bytes of all tensors."""
        tensors = self.tensors()
        places = {info.name: info.file.name for info in tensors}
        size = sum(info.nbytes for info in tensors)
        self.write_json(INDEX, {"metadata": {"total_size": size}, "weight_map": places})
        (self.path / MANIFEST).unlink()
        return size

    def _write_manifest(self) -> None:
        file = self.path / MANIFEST
        partial = file.with_suffix(".partial")
        partial.write_bytes(msgspec.json.encode(self._manifest))
        partial.replace(file)


def _plain(value: object) -> object:
    """What json cannot write itself: arrays of metadata."""
    return value.tolist() if hasattr(value, "tolist") else str(value)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]


def _remove(path: Path) -> None:
    if path.is_dir() and not (path / MANIFEST).exists() and not (path / "config.json").exists():
        raise ConfigError(
            f"{path} holds neither a checkpoint nor an unfinished one, so it is not overwritten; "
            "remove it yourself, or name another --output"
        )
    if path.is_dir():
        shutil.rmtree(path)


def _unfinished(path: Path, job: dict[str, Any]) -> _Manifest:
    file = path / MANIFEST
    if not file.is_file():
        raise ConfigError(f"{path} exists and is not empty; name another --output, or --overwrite")
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=_Manifest)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file} is damaged ({error}); start again with --overwrite") from error
    differing = [key for key, value in job.items() if manifest.job.get(key) != value]
    if differing:
        told = ", ".join(f"{key} was {manifest.job.get(key)!r}" for key in differing)
        raise ConfigError(
            f"{path} holds an unfinished run of another job ({told}); ask for the same to go on, "
            "or start again with --overwrite"
        )
    return manifest
