"""Weights that Quark wrote (`quant_method: quark`): eight-bit floats and integers, and MXFP4.

`layer_quant_config` states what the modules of its patterns are, `global_quant_config` what the
others are but those of `exclude`. The tensors are ModelOpt's: `<prefix>.weight` float8_e4m3fn or
int8 [N, K] times `weight_scale`, one ([]) or one for each row ([N]); or `weight` uint8 [N, K / 2]
of E2M1 (fp4), or float8_e4m3fn [N, K], times `weight_scale` uint8 [N, K / 32], powers of two.
`weight_zero_point` holds zeros.

Scales of activations are checked and not used. Activations that are rotated before they meet a
weight, weights that were rounded twice, and classes of modules with a way of their own
(`layer_type_quant_config`) are refused.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from aphrodite_kernels.layouts import PackedWeight

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense, modelopt
from aphrodite_quant.modules import matched, named_modules, refuse_named
from aphrodite_quant.reader import Reader
from aphrodite_quant.schemes import Scheme

_DTYPES = {"fp8_e4m3": ("float", 8), "int8": ("int", 8), "fp4": ("float", 4)}
_SHARED = {
    ("fp8_e4m3", "per_tensor"): "tensor",
    ("fp8_e4m3", "per_channel"): "channel",
    ("int8", "per_tensor"): "tensor",
    ("int8", "per_channel"): "channel",
    ("fp8_e4m3", "per_group"): "group",
    ("fp4", "per_group"): "group",
}
"""Which weights there are, and what shares a scale."""
_STORED = (torch.float8_e4m3fn, torch.int8, torch.uint8, torch.int32)


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "quark"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as ModelOpt's, each as the configuration states of its module."""
    where, stated = str(checkpoint.path), checkpoint.quant_config or {}
    _check_algorithms(where, stated)
    plain = named_modules(checkpoint.path, stated, "exclude")
    everywhere = _scheme(f"{where}: global_quant_config", stated.get("global_quant_config"))
    patterns = {
        name: _scheme(f"{where}: layer_quant_config.{name}", value)
        for name, value in _object(where, stated, "layer_quant_config").items()
    }

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        info = store.info(f"{prefix}.weight")
        if info.type not in _STORED:
            return dense.read_left_alone(store, prefix)
        refuse_named(info, prefix, plain, "exclude")
        name = matched(prefix, list(patterns))
        scheme = everywhere if name is None else patterns[name]
        if scheme is None:
            raise TensorError(
                f"{info.file}: tensor {info.name!r} is {info}, but the configuration states no "
                "weight for this module"
            )
        _check_beside(store, prefix, scheme)
        return modelopt.read(store, prefix, scheme)

    return read_module


def _object(where: str, stated: Mapping[str, Any], field: str) -> dict[str, Any]:
    value: object = stated.get(field) or {}
    if not isinstance(value, dict):
        raise FormatError(f"{where}: {field} is {value!r}, expected an object")
    return cast("dict[str, Any]", value)


def _check_algorithms(where: str, stated: Mapping[str, Any]) -> None:
    kinds = _object(where, stated, "layer_type_quant_config")
    if kinds:
        raise FormatError(
            f"{where}: layer_type_quant_config has {', '.join(kinds)}, which is not supported; "
            "expected layer_quant_config with names of modules"
        )
    found: object = stated.get("algo_config") or []
    listed = cast("list[object]", found) if isinstance(found, list) else [found]
    for value in listed:
        name = cast("dict[str, object]", value).get("name") if isinstance(value, dict) else value
        if name in ("rotation", "quarot", "svdquant"):
            raise FormatError(
                f"{where}: algo_config has {name!r}, which changes activations and is not supported"
            )


def _scheme(where: str, group: object) -> Scheme | None:
    """What the weights of a group are; None: they are plain."""
    if not isinstance(group, dict):
        raise FormatError(f"{where} is {group!r}, expected an object")
    weight = cast("dict[str, object]", group).get("weight")
    if weight is None:
        return None
    if not isinstance(weight, dict):
        raise FormatError(f"{where}.weight is {weight!r}, expected an object: one rounding")
    stated = cast("dict[str, Any]", weight)
    dtype, shared = stated.get("dtype"), stated.get("qscheme")
    strategy = _SHARED.get((str(dtype), str(shared)))
    if strategy is None:
        present = ", ".join(f"{kind} {each}" for kind, each in _SHARED)
        raise FormatError(
            f"{where}.weight is {dtype} {shared}, which is not supported; present are {present}"
        )
    axis, expected = stated.get("ch_axis"), {"channel": (0,), "group": (1, -1)}.get(strategy)
    if expected is not None and axis not in expected:
        raise FormatError(f"{where}.weight has ch_axis {axis!r}, expected {expected[0]}")
    if strategy == "group" and stated.get("scale_format") != "e8m0":
        raise FormatError(
            f"{where}.weight has scale_format {stated.get('scale_format')!r}, expected 'e8m0'"
        )
    kind, bits = _DTYPES[str(dtype)]
    scheme = {"type": kind, "num_bits": bits, "strategy": strategy}
    return Scheme.of(where, scheme | {"group_size": stated.get("group_size")})


def _check_beside(store: TensorStore, prefix: str, scheme: Scheme) -> None:
    """No zero point but 0, and nothing that turns activations."""
    zero, turned = f"{prefix}.weight_zero_point", f"{prefix}.input_rotation"
    if zero in store.names() and bool((store.read(zero) != 0).any()):
        raise scheme.contradicts(store.info(zero))
    if turned in store.names():
        info = store.info(turned)
        raise TensorError(
            f"{info.file}: tensor {turned!r} is {info}, which turns activations and is not "
            "supported"
        )
