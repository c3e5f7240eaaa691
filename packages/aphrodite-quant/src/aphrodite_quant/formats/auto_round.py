"""Weights that AutoRound wrote (`quant_method: auto-round`, `intel/auto-round` or `inc`).

Integers lie as GPTQ or AWQ (gemm) has them, by `packing_format`; its own packing is GPTQ's with
zero points as they are. Floats, by `data_type`, lie as compressed-tensors has MXFP4, MXFP8
(`mx_fp`) and NVFP4 (`nv_fp`), or, `fp` of 8 bits, as `fp8` has them; their activations are not
quantised, which is more exact. `extra_config` says, for names of modules or patterns that are found
in them, what differs; a module of 16 bits has a plain weight, as has one that has only a weight.

Rotations (`rotation_config`, `spinquant_config`) turn activations, and are refused.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aphrodite_kernels.layouts import PackedWeight

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError
from aphrodite_quant.formats import awq, compressed_tensors, dense, fp8, gptq
from aphrodite_quant.reader import Reader
from aphrodite_quant.schemes import Scheme

_METHODS = ("auto-round", "auto_round", "intel/auto-round", "inc")
_DEFAULT = "auto_round:auto_gptq"
_PACKINGS = {
    _DEFAULT: "gptq",
    "auto_round:gptq": "gptq",
    "auto_gptq": "gptq",
    "auto": "gptq",
    "auto_round": "gptq_v2",
    "auto_round:gptqmodel": "gptq_v2",
    "auto_round:auto_awq": "awq",
    "auto_round:awq": "awq",
    "auto_awq": "awq",
    "auto_round:llm_compressor": "floats",
    "auto_round:fp8": "floats",
    "auto_round:fp8_static": "floats",
}
"""What each packing is in the words of the formats that have it too."""
_FLOATS = {("mx_fp", 4): "group", ("mx_fp", 8): "group", ("nv_fp", 4): "tensor_group"}
"""What shares a scale in floats of groups."""
_ROTATIONS = ("rotation_config", "spinquant_config")
_PLAIN_BITS = 16


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") in _METHODS


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights packed as the configuration says of each module."""
    stated, where = checkpoint.quant_config or {}, checkpoint.path
    named = stated.get("packing_format")
    default = "auto_round:fp8" if stated.get("data_type") == "fp" else _DEFAULT
    packing = default if named is None else named
    kind = _PACKINGS.get(packing) if isinstance(packing, str) else None
    if kind is None:
        raise FormatError(
            f"{where}: packing_format {packing!r} of AutoRound is not supported; "
            f"present are {', '.join(_PACKINGS)}"
        )
    common = {"bits": 4, "group_size": 128} | dict(stated) | {"checkpoint_format": kind}
    for rotation in _ROTATIONS:
        if common.get(rotation):
            raise FormatError(f"{where}: {rotation} turns activations, which is not supported")
    _check(where, kind, common)
    exceptions, patterns = _exceptions(where, kind, common)

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        found = [changed for pattern, changed in patterns if pattern.search(prefix)]
        changed = exceptions.get(prefix, found[0] if found else {})
        return _read(store, prefix, where, common | dict(changed))

    return read_module


def _read(
    store: TensorStore, prefix: str, where: Path, settings: Mapping[str, Any]
) -> PackedWeight:
    if settings["bits"] == _PLAIN_BITS:
        return dense.read_left_alone(store, prefix)
    if settings["checkpoint_format"] == "floats":
        return _read_floats(store, prefix, where, settings)
    if settings["checkpoint_format"] == "awq":
        return awq.read(store, prefix, settings["group_size"])
    return gptq.read(store, prefix, gptq.Packing.of(where, settings))


def _read_floats(
    store: TensorStore, prefix: str, where: Path, settings: Mapping[str, Any]
) -> PackedWeight:
    scheme = _scheme(where, settings)
    if scheme is None:
        return fp8.read(store, prefix, fp8.block_size(where, settings))
    scales = f"{prefix}.weight_scale"
    if scales not in store.names():
        return dense.read_left_alone(store, prefix)
    return compressed_tensors.read(store, prefix, scheme)


def _exceptions(
    where: Path, kind: str, common: Mapping[str, Any]
) -> tuple[Mapping[str, Mapping[str, Any]], list[tuple[re.Pattern[str], Mapping[str, Any]]]]:
    """What differs, by name of a module, and by pattern; a key may be either."""
    stated: object = common.get("extra_config") or {}
    if not isinstance(stated, dict):
        raise FormatError(f"{where}: extra_config is {stated!r}, expected an object of modules")
    named: dict[str, Mapping[str, Any]] = {}
    patterns: list[tuple[re.Pattern[str], Mapping[str, Any]]] = []
    for key, changed in cast("dict[str, object]", stated).items():
        if not isinstance(changed, dict):
            raise FormatError(f"{where}: extra_config {key!r} is {changed!r}, expected an object")
        named[key] = cast("dict[str, Any]", changed)
        _check(where, kind, {**common, **named[key]})
        try:
            patterns.append((re.compile(key), named[key]))
        except re.error as error:
            raise FormatError(
                f"{where}: extra_config has {key!r}, neither a module nor a pattern: {error}"
            ) from error
    return named, patterns


def _check(where: Path, kind: str, settings: Mapping[str, Any]) -> None:
    """FormatError if a module with these settings cannot be read."""
    if settings["bits"] == _PLAIN_BITS:
        return
    if kind == "floats":
        _scheme(where, settings)
        return
    numbers = settings.get("data_type", "int")
    activations = settings.get("act_bits") or _PLAIN_BITS
    if numbers != "int" or activations < _PLAIN_BITS:
        raise FormatError(
            f"{where}: AutoRound wrote data_type {numbers!r} for activations of {activations!r} "
            f"bits; present are int and {_PLAIN_BITS} bits"
        )
    if kind == "awq":
        awq.check(where, settings["bits"], settings["group_size"])
    else:
        gptq.Packing.of(where, settings)


def _scheme(where: Path, settings: Mapping[str, Any]) -> Scheme | None:
    """What floats of groups are; None: they are as `fp8` has them."""
    numbers, bits, group = settings.get("data_type"), settings["bits"], settings["group_size"]
    if (numbers, bits) == ("fp", 8):
        fp8.block_size(where, settings)
        return None
    shared = _FLOATS.get((str(numbers), bits) if isinstance(bits, int) else ("", 0))
    if shared is None:
        raise FormatError(
            f"{where}: AutoRound wrote data_type {numbers!r} of {bits!r} bits; present are fp 8, "
            f"{', '.join(f'{name} {size}' for name, size in _FLOATS)}"
        )
    stated = {"type": "float", "num_bits": bits, "strategy": shared, "group_size": group}
    return Scheme.of(f"{where}: data_type {numbers}", stated)
