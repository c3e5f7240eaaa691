"""Safetensors files, one or several behind an index; the library parses and maps them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aphrodite_quant.containers.shards import read_shards
from aphrodite_quant.containers.store import IndexedStore, TensorInfo, check_copy
from aphrodite_quant.containers.weight_file import refuse_impostors
from aphrodite_quant.errors import ContainerError

_DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, eq=False, slots=True)
class SafetensorsStore(IndexedStore):
    """The tensors of one or several safetensors files."""

    _handles: Mapping[Path, Any]
    metadata: Mapping[str, str]
    """What was written beside the tensors, of all files."""

    def read(self, name: str) -> Tensor:
        return self._handles[self.info(name).file].get_tensor(name)


def open_safetensors(*files: Path) -> SafetensorsStore:
    """Open one file, or all parts of one: a tensor is in the first that has it."""
    return _open_files(dict.fromkeys(files))


def open_index(path: Path) -> SafetensorsStore:
    """Open every shard that an index file names; the index decides where a tensor is."""
    shards = read_shards(path, ".safetensors")
    return _open_files({path.parent / name: tensors for name, tensors in shards.items()})


def _open_files(shards: Mapping[Path, Collection[str] | None]) -> SafetensorsStore:
    """Files, and the tensors that are to be in each; None: whatever is in no file before."""
    infos: dict[str, TensorInfo] = {}
    handles: dict[Path, Any] = {}
    metadata: dict[str, str] = {}
    for shard, stated in shards.items():
        handle = handles[shard] = _open(shard)
        new = [name for name in handle.keys() if name not in infos]  # noqa: SIM118
        infos |= _infos(shard, handle, new if stated is None else stated)
        metadata |= handle.metadata() or {}
    store = SafetensorsStore(tuple(handles), infos, handles, metadata)
    for shard, handle in handles.items():
        for name in sorted(handle.keys()):
            if name in infos and infos[name].file != shard:
                copy = handle.get_tensor(name)
                check_copy(name, shard, copy, infos[name].file, store.read(name))
    return store


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one file; readable by whoever may read what lies beside it."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    path.touch()
    mode = path.stat().st_mode
    save_file(whole, path, metadata={"format": "pt"})
    path.chmod(mode)  # the library makes private files


def _open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    refuse_impostors(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, MemoryError) as error:
        raise ContainerError(
            f"{path} ({path.stat().st_size} bytes) is not whole safetensors: {error}; "
            "if it was downloaded, fetch it again"
        ) from error


def _infos(path: Path, handle: Any, names: Collection[str]) -> dict[str, TensorInfo]:
    present = set(handle.keys())
    infos: dict[str, TensorInfo] = {}
    for name in names:
        if name not in present:
            raise ContainerError(f"{path} does not hold tensor {name!r}, though the index says so")
        part = handle.get_slice(name)
        code = part.get_dtype()
        if code not in _DTYPES:
            raise ContainerError(f"{path}: tensor {name!r} has unknown dtype {code}")
        infos[name] = TensorInfo(name, path, _DTYPES[code], tuple(part.get_shape()))
    return infos
