"""From a path to an opened checkpoint: which container, its config, its side files.

It knows nothing of models, nor of how weights are packed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from aphrodite_quant.containers.gguf import open_gguf
from aphrodite_quant.containers.gguf_header import MetadataValue
from aphrodite_quant.containers.pickled import open_pickled, open_pickled_index
from aphrodite_quant.containers.safetensors import open_index, open_safetensors
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import CheckpointError
from aphrodite_quant.json_object import read_json_object
from aphrodite_quant.location import Kind, find_weights

_SIDE_FILES = (
    ("quantize_config.json", "", "gptq"),
    ("quant_config.json", "w_bit", "awq"),
    ("quant_config.json", "wbits", "squeezellm"),
    ("quanto_qmap.json", "", "quanto"),
    ("quantization_config.json", "codesz", "quip"),
)
"""Of files that older tools wrote beside the weights: name, a field of theirs, the method."""
_UNSTATED = ((".W_q", "hqq"), (".Qidxs", "quip"))
"""Of checkpoints of tools that state nothing at all: how a name of a tensor ends, the method."""
_MODELOPT = "hf_quant_config.json"
QUIP_SHARP = "quip_params"
"""Where quip-sharp puts its settings into config.json."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An opened checkpoint; nothing but headers has been read, and each side file once."""

    path: Path
    """As given: a file or a directory."""
    kind: Kind
    store: TensorStore
    config: Mapping[str, Any]
    """config.json of a directory; empty if it has none."""
    metadata: Mapping[str, MetadataValue]
    """Typed metadata of a GGUF file; text beside the tensors of other kinds."""

    @cached_property
    def quant_config(self) -> Mapping[str, Any] | None:
        """What config.json says of quantisation, or a side file in its place, if anything."""
        field, beside = "quantization_config", {}
        stated = self.config.get(field) or self.config.get("compression_config")
        if stated is None and QUIP_SHARP in self.config:
            field, beside = QUIP_SHARP, {"quant_method": "quip_sharp"}
            stated = self.config[field]
        if stated is not None and not isinstance(stated, dict):
            raise CheckpointError(f"{self.path}: {field} is {stated!r}, not an object")
        if stated is None:
            return self._side_config()
        return beside | cast("dict[str, Any]", stated)

    def _side_config(self) -> Mapping[str, Any] | None:
        for name, field, method in _SIDE_FILES:
            file = self.side_file(name)
            stated = {} if file is None else read_json_object(file)
            if file is not None and (not field or field in stated):
                return {"quant_method": method} | stated
        # One that states the KV cache alone leaves the weights plain.
        own = self.modelopt_config
        if own.get("quant_algo"):
            return {"quant_method": "modelopt"} | dict(own)
        for ending, method in _UNSTATED:
            if any(name.endswith(ending) for name in self.store.names()):
                return {"quant_method": method}
        return None

    @cached_property
    def modelopt_config(self) -> Mapping[str, Any]:
        """What ModelOpt states in a file of its own; empty if there is none."""
        file = self.side_file(_MODELOPT)
        stated: object = None if file is None else read_json_object(file).get("quantization")
        if stated is not None and not isinstance(stated, dict):
            raise CheckpointError(f"{file}: quantization is {stated!r}, expected an object")
        return {} if stated is None else cast("dict[str, Any]", stated)

    def side_file(self, name: str) -> Path | None:
        """A file of that name beside the weights of a directory; a lone file has none."""
        file = self.path / name
        return file if self.path.is_dir() and file.is_file() else None


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Open a .gguf file (of a split: the first), or a directory with weights of one kind.

    Of several kinds, safetensors come first, then GGUF, then what torch pickled.

    Raises:
        QuantError: nothing there, not weights, or weights that are corrupt.
    """
    location = find_weights(path)
    side = location.path / "config.json"
    config = read_json_object(side) if side.is_file() else {}
    if location.kind == "gguf":
        store = open_gguf(location.file)
        return Checkpoint(location.path, "gguf", store, config, store.metadata)
    pickled = location.kind == "pickle"
    if location.is_index:
        store = (open_pickled_index if pickled else open_index)(location.file)
    else:
        store = (open_pickled if pickled else open_safetensors)(*location.weight_files())
    return Checkpoint(location.path, location.kind, store, config, store.metadata)
