"""Files that torch saved (.bin, .pt, .pth), one or several behind an index: names and tensors.

Or modules, each with its tensors and settings by name, as hqq saves them: settings become metadata.

They are pickles, which may ask for any code to be run. Torch's restricted unpickler knows tensors
and plain containers alone and refuses the rest; the numbers stay in the mapped file until they are
read, unless the file is of the kind that torch wrote before 1.6, which is read whole.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import cast
from zipfile import is_zipfile

import torch
from torch import Tensor
from torch.serialization import safe_globals

from aphrodite_quant.containers.shards import read_shards
from aphrodite_quant.containers.store import IndexedStore, TensorInfo, check_copy
from aphrodite_quant.containers.torchao_pickles import (
    TakenApart,
    as_json,
    part_names,
    stand_ins,
    take_apart,
)
from aphrodite_quant.containers.weight_file import refuse_impostors
from aphrodite_quant.errors import ContainerError

_SETTINGS = (bool, int, float, str, tuple, torch.dtype)
"""What may stand beside the tensors of a module."""
_ASKED = re.compile(r"GLOBAL ([\w.]+)")
"""What a pickle asks for beyond tensors, in the words of torch's unpickler."""


@dataclass(frozen=True, eq=False, slots=True)
class PickledStore(IndexedStore):
    """The tensors of one or several files that torch saved."""

    _tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    """What is known of tensors that were taken apart, as JSON by the name of the whole."""

    def read(self, name: str) -> Tensor:
        self.info(name)
        return self._tensors[name].contiguous()


def open_pickled(*files: Path) -> PickledStore:
    """Open one file, or all parts of one: a tensor is in the first that has it."""
    return _open_files(dict.fromkeys(files))


def open_pickled_index(path: Path) -> PickledStore:
    """Open every file that an index names; the index decides where a tensor is."""
    shards = read_shards(path, ".bin")
    return _open_files({path.parent / name: tensors for name, tensors in shards.items()})


def _open_files(shards: Mapping[Path, Collection[str] | None]) -> PickledStore:
    """Files, and the tensors that are to be in each; None: whatever is in no file before."""
    infos: dict[str, TensorInfo] = {}
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    copies: list[tuple[Path, str, Tensor]] = []
    for file, stated in shards.items():
        found, described = _load(file)
        wanted = found.keys() - tensors.keys() if stated is None else set(stated)
        absent = sorted(wanted - found.keys() - described.keys())
        if absent:
            raise ContainerError(
                f"{file} does not hold tensor {absent[0]!r}, though the index says so"
            )
        parts = {name for whole in described.keys() & wanted for name in part_names(whole, found)}
        chosen = {tensor: found[tensor] for tensor in found if tensor in parts or tensor in wanted}
        metadata |= described
        tensors |= chosen
        infos |= _infos(file, chosen)
        copies += [(file, tensor, found[tensor]) for tensor in found if tensor not in chosen]
    for file, tensor, copy in copies:
        if tensor in tensors:
            check_copy(tensor, file, copy, infos[tensor].file, tensors[tensor])
    return PickledStore(tuple(shards), infos, tensors, metadata)


def _load(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    """All tensors of a file, and what is known of those that were taken apart.

    ContainerError if it holds anything else.
    """
    refuse_impostors(path, pickled=True)
    try:
        zipped = is_zipfile(path)
        with safe_globals(stand_ins(path) if zipped else []):
            found: object = torch.load(path, map_location="cpu", mmap=zipped, weights_only=True)
    except UnpicklingError as error:
        asked = _ASKED.search(str(error))
        raise ContainerError(
            f"{path} is refused: to open it would call {asked[1]}; fetch weights in safetensors"
            if asked
            else f"{path} holds more than tensors, or is damaged; fetch weights in safetensors"
        ) from error
    except Exception as error:
        # Damaged bytes make the unpickler fail in any way; none of them is more than damage.
        raise ContainerError(
            f"{path} ({path.stat().st_size} bytes) is not a whole file that torch saved "
            f"({type(error).__name__}); if it was downloaded, fetch it again"
        ) from error
    if not isinstance(found, dict):
        raise ContainerError(f"{path} holds a {type(found).__name__}; expected tensors by name")
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for name, value in cast("dict[object, object]", found).items():
        if isinstance(name, str) and isinstance(value, TakenApart):
            parts, metadata[name] = take_apart(name, value)
            tensors |= parts
        elif isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value.detach()
        elif isinstance(name, str) and isinstance(value, dict):
            parts, said = _of_module(path, f"{name}.", cast("dict[object, object]", value))
            tensors |= parts
            if said:
                metadata[name] = json.dumps(said)
        else:
            raise _unexpected(path, name, value)
    return tensors, metadata


def _of_module(
    path: Path, start: str, entries: Mapping[object, object]
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors of one module, `<module>.<outer>_<inner>`; what else it says, as JSON has it."""
    tensors: dict[str, Tensor] = {}
    said: dict[str, object] = {}
    for key, value in entries.items():
        if not isinstance(key, str) or "." in key:
            raise _unexpected(path, start.removesuffix("."), entries)
        name = f"{start}{key}"
        if isinstance(value, Tensor) and not isinstance(value, TakenApart):
            tensors[name] = value.detach()
        elif isinstance(value, dict):
            parts, inner = _of_module(path, f"{name}_", cast("dict[object, object]", value))
            tensors |= parts
            said[key] = inner
        elif value is None or isinstance(value, _SETTINGS):
            said[key] = as_json(cast("object", value))
        else:
            raise _unexpected(path, name, value)
    return tensors, said


def _unexpected(path: Path, name: object, value: object) -> ContainerError:
    return ContainerError(
        f"{path}: {name!r} is a {type(value).__name__}; expected tensors by name, or by module and "
        "name"
    )


def _infos(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    infos: dict[str, TensorInfo] = {}
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_complex() or tensor.is_quantized:
            raise ContainerError(
                f"{path}: tensor {name!r} is {tensor.dtype} of layout {tensor.layout} on "
                f"{tensor.device}; expected plain numbers"
            )
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ContainerError(
                f"{path}: tensor {name!r} of {list(tensor.shape)} claims {tensor.nbytes} bytes; "
                f"the file has {tensor.untyped_storage().nbytes()} for it"
            )
        infos[name] = TensorInfo(name, path, tensor.dtype, tuple(tensor.shape))
    return infos
