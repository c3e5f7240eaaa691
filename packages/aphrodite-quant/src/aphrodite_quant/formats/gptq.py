"""GPTQ weights (`quant_method: gptq`, or the older quantize_config.json): 2 to 8 bits.

With b bits, G groups: `<prefix>.qweight` int32 [K * b / 32, N], each column a little-endian bit
stream of codes; `qzeros` int32 [G, N * b / 32], each row such a stream of zero points, one too low
unless `checkpoint_format` is `gptq_v2`; `scales` [G, N]; `g_idx` int32 [K], the group of each input
feature (absent: in order). Modules without `qweight` have a plain weight.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import column_order, exact, floating, group_size, matrix
from aphrodite_quant.reader import Reader

_METHODS = ("gptq", "auto_gptq", "gptq_marlin")
_BITS = range(2, 9)
_OFFSETS = {"gptq": 1, "gptq_v2": 0}
_ELSEWHERE = ("marlin", "marlin_24")
"""Arrangements that are formats of their own."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How one module is packed."""

    bits: int
    group: int
    """Input features that share a scale; -1: all of them."""
    offset: int
    """What is added to stored zero points."""

    @classmethod
    def of(cls, where: Path, stated: Mapping[str, Any]) -> Self:
        """From a configuration; FormatError if it is not one that this format has."""
        bits, group = stated.get("bits"), stated.get("group_size", -1)
        if not isinstance(bits, int) or bits not in _BITS:
            raise FormatError(f"{where}: GPTQ has 2 to 8 bits, found bits {bits!r}")
        if not isinstance(group, int) or (group < 1 and group != -1):
            raise FormatError(f"{where}: group_size is a positive number or -1, found {group!r}")
        kind = stated.get("checkpoint_format") or stated.get("format") or "gptq"
        if not isinstance(kind, str) or kind not in _OFFSETS:
            raise FormatError(
                f"{where}: checkpoint_format is one of {', '.join(_OFFSETS)}, found {kind!r}"
            )
        return cls(bits, group, _OFFSETS[kind])


def arrangement(stated: Mapping[str, Any]) -> str | None:
    """What a configuration of GPTQ calls the way its tensors lie, also in older words."""
    if stated.get("quant_method") not in _METHODS:
        return None
    if stated.get("is_marlin_format"):
        return "marlin"
    return str(stated.get("checkpoint_format") or stated.get("format") or "gptq")


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config, or a side file in its place, says so."""
    found = arrangement(checkpoint.quant_config or {})
    return checkpoint.kind != "gguf" and found not in (None, *_ELSEWHERE)


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, each packed as the configuration says of its module."""
    stated = checkpoint.quant_config or {}
    where, common = checkpoint.path, dict(stated)
    Packing.of(where, common)
    overrides = _overrides(where, common.get("dynamic") or {})

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        found = [changes for pattern, changes in overrides if pattern.match(prefix)]
        changed = found[0] if found else {}
        return read(store, prefix, Packing.of(where, common | changed))

    return read_module


def read(store: TensorStore, prefix: str, packing: Packing) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if f"{prefix}.qweight" not in store.names():
        return dense.read_left_alone(store, prefix)
    stored = store.read(matrix(store, f"{prefix}.qweight", torch.int32).name)
    bits, out = packing.bits, stored.shape[1]
    columns = stored.shape[0] * 32 // bits
    if stored.shape[0] * 32 % bits:
        info = store.info(f"{prefix}.qweight")
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}, whose columns do not hold whole codes "
            f"of {bits} bits"
        )
    group = group_size(store, f"{prefix}.qweight", packing.group, columns)
    scale = floating(store, f"{prefix}.scales", (columns // group, out)).T.contiguous()
    words = (columns // group, out * bits // 32)
    zeros = exact(store, f"{prefix}.qzeros", torch.int32, words).contiguous()
    zero = unpack_codes(zeros.view(torch.uint8), bits).T.to(scale.dtype) + packing.offset
    implied = bool((zero == 1 << bits - 1).all())
    weight = Grouped(
        stored.T.contiguous().view(torch.uint8), scale, None if implied else zero, bits, group
    )
    order = column_order(store, f"{prefix}.g_idx", columns, group)
    if order is None:
        return weight
    return Grouped.pack(weight.unpack()[:, order], scale, weight.zero, bits, group, order)


def _overrides(where: Path, stated: object) -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Patterns of modules ("+:pattern", "pattern") and what they change; "-:" modules are plain."""
    if not isinstance(stated, dict):
        raise FormatError(f"{where}: dynamic is {stated!r}, expected an object of patterns")
    found: list[tuple[re.Pattern[str], dict[str, Any]]] = []
    for key, changed in cast("dict[str, object]", stated).items():
        try:
            pattern = re.compile(key.removeprefix("+:").removeprefix("-:"))
        except re.error as error:
            raise FormatError(f"{where}: dynamic has {key!r}, no pattern: {error}") from error
        if not isinstance(changed, dict):
            raise FormatError(f"{where}: dynamic {key!r} is {changed!r}, expected an object")
        values = cast("dict[str, Any]", changed)
        found.append((pattern, values))
        if values and not key.startswith("-:"):
            Packing.of(where, {"bits": 4} | values)
    return found
