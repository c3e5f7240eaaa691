"""Weights that ModelOpt wrote (`quant_method: modelopt`, or `hf_quant_config.json` beside them).

`quant_algo` states what all modules are but those of `exclude_modules` or `ignore`; if it is
MIXED_PRECISION, `quantized_layers` has one for each module. A module that was left alone has a
plain weight. Names are the tool's; letters may be small.

- FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO: `<prefix>.weight` float8_e4m3fn [N, K] times
  `weight_scale`: one, one for each row, or one for every 128 x 128 ([N / 128, 1, K / 128, 1]).
- W8A16, W8A8_SQ_PER_CHANNEL: `weight` int8 [N, K] times `weight_scale` [N].
- MXFP8: `weight` float8_e4m3fn [N, K], `weight_scale` uint8 [N, K / 32], powers of two.
- MXFP4, W4A8_MXFP4_FP8: `weight` uint8 [N, K / 2] of E2M1, `weight_scale` as in MXFP8.
- NVFP4, W4A16_NVFP4, W4A8_NVFP4_FP8, NVFP4_AWQ: `weight` uint8 [N, K / 2] of E2M1 times
  `weight_scale` float8_e4m3fn [N, K / 16] times `weight_scale_2`, one number.
- W4A16_AWQ, W4A8_AWQ: `weight` uint8 [N / 2, K] of two integers from -8 to 7, that of the even row
  in the low four bits, times `weight_scale` [N, K / g].

`pre_quant_scale` [K] of AWQ and SmoothQuant multiplies the input features. `input_scale` is checked
and not used, nor is `weight_scale_2` of W4A8_AWQ, which rounds weights for products in eight bits:
nothing is rounded for a product, which is more exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.runs import Runs

from aphrodite_quant.blocks import scaled, with_powers, with_small_scales
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import matched, named_modules, refuse_named
from aphrodite_quant.numbers import floating, matrix, positive
from aphrodite_quant.reader import Reader
from aphrodite_quant.schemes import Scheme

_LISTS = ("exclude_modules", "ignore")
_MIXED = "MIXED_PRECISION"
_TYPES = {
    ("float", 8): torch.float8_e4m3fn,
    ("float", 4): torch.uint8,
    ("int", 8): torch.int8,
    ("int", 4): torch.uint8,
}
_ALGORITHMS = {
    "FP8": ("float", 8, "tensor", 0),
    "FP8_PER_CHANNEL_PER_TOKEN": ("float", 8, "channel", 0),
    "FP8_PB_WO": ("float", 8, "block", 128),
    "W8A16": ("int", 8, "channel", 0),
    "W8A8_SQ_PER_CHANNEL": ("int", 8, "channel", 0),
    "MXFP8": ("float", 8, "group", 32),
    "MXFP4": ("float", 4, "group", 32),
    "W4A8_MXFP4_FP8": ("float", 4, "group", 32),
    "NVFP4": ("float", 4, "tensor_group", 16),
    "W4A16_NVFP4": ("float", 4, "tensor_group", 16),
    "W4A8_NVFP4_FP8": ("float", 4, "tensor_group", 16),
    "NVFP4_AWQ": ("float", 4, "tensor_group", 16),
    "W4A16_AWQ": ("int", 4, "group", 128),
    "W4A8_AWQ": ("int", 4, "group", 128),
}
"""What weights are, its bits, what shares a scale, and how wide that is if nothing is stated."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config, or the file beside it, says so."""
    stated = checkpoint.quant_config or {}
    producer: object = stated.get("producer")
    name = cast("dict[str, object]", producer).get("name") if isinstance(producer, dict) else None
    method = stated.get("quant_method", name)
    return checkpoint.kind != "gguf" and str(method).partition("_")[0] == "modelopt"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, each as the configuration states of its module."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    nested: object = stated.get("quantization")
    inner = cast("dict[str, Any]", nested) if isinstance(nested, dict) else {}
    modules = _Modules.of(checkpoint, dict(checkpoint.modelopt_config) | inner | dict(stated))

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        info = store.info(f"{prefix}.weight")
        if isinstance(info.type, torch.dtype) and info.type in _TYPES.values():
            refuse_named(info, prefix, list(modules.plain), " or ".join(_LISTS))
            return read(store, prefix, modules.find(info, prefix))
        return dense.read_left_alone(store, prefix)

    return read_module


@dataclass(frozen=True, slots=True)
class _Modules:
    """What the configuration states of modules."""

    everywhere: Scheme | None
    by_path: Mapping[str, Scheme]
    """The longest path first: the nearest decides."""
    plain: tuple[str, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, stated: Mapping[str, Any]) -> Self:
        where = str(checkpoint.path)
        plain = tuple(named_modules(checkpoint.path, stated, *_LISTS))
        if str(stated.get("quant_algo")).upper() != _MIXED:
            return cls(_scheme(where, stated), {}, plain)
        layers: object = stated.get("quantized_layers")
        if not isinstance(layers, dict):
            raise FormatError(
                f"{where}: quantized_layers of {_MIXED} is {layers!r}, expected an object of "
                "modules"
            )
        found: dict[str, Scheme] = {}
        for name, value in cast("dict[str, object]", layers).items():
            field = f"{where}: quantized_layers.{name}"
            if not isinstance(value, dict):
                raise FormatError(f"{field} is {value!r}, expected an object with a quant_algo")
            scheme = _scheme(field, cast("dict[str, Any]", value))
            if scheme is not None:
                found[name] = scheme
        names = sorted(found, key=len, reverse=True)
        return cls(None, {name: found[name] for name in names}, plain)

    def find(self, weight: TensorInfo, module: str) -> Scheme:
        """What a weight that is not plain is; TensorError if nothing is stated of it."""
        name = module if module in self.by_path else matched(module, list(self.by_path))
        scheme = self.everywhere if name is None else self.by_path[name]
        if scheme is None:
            raise TensorError(
                f"{weight.file}: tensor {weight.name!r} is {weight}, but the configuration states "
                "no quant_algo for this module"
            )
        return scheme


def _scheme(where: str, stated: Mapping[str, Any]) -> Scheme | None:
    """What an algorithm makes of weights; None if none is stated."""
    algorithm = stated.get("quant_algo")
    if algorithm is None:
        return None
    found = _ALGORITHMS.get(str(algorithm).upper())
    if found is None:
        raise FormatError(
            f"{where}: quant_algo {algorithm!r} is not supported, present are "
            f"{', '.join(_ALGORITHMS)} and {_MIXED}"
        )
    kind, bits, strategy, usual = found
    group = stated.get("group_size") or usual
    return Scheme.of(
        f"{where}: quant_algo {algorithm}",
        {
            "type": kind,
            "num_bits": bits,
            "strategy": strategy,
            "group_size": group,
            "block_structure": [group, group],
        },
    )


def read(store: TensorStore, prefix: str, scheme: Scheme) -> PackedWeight:
    """The quantised weight of module `prefix`, which must be as `scheme` states."""
    info = matrix(store, f"{prefix}.weight", *_TYPES.values())
    if info.type != _TYPES[scheme.kind, scheme.bits]:
        raise scheme.contradicts(info)
    if f"{prefix}.input_scale" in store.names():
        positive(store, f"{prefix}.input_scale")
    weight = _four_bits if (scheme.kind, scheme.bits) == ("int", 4) else _scaled
    found = weight(store, prefix, info, scheme)
    name = f"{prefix}.pre_quant_scale"
    if name not in store.names():
        return found
    width = found.in_features
    factor = floating(store, name, (width,), (1, width)).float().reshape(width)
    return Runs((found,), scale=factor)


def _four_bits(store: TensorStore, prefix: str, info: TensorInfo, scheme: Scheme) -> PackedWeight:
    """Integers, those of two rows to a byte."""
    rows, columns = 2 * info.shape[0], info.shape[1]
    group = scheme.block[1]
    if columns % group or columns % 2:
        raise scheme.contradicts(info)
    scale = positive(store, f"{prefix}.weight_scale", (rows, columns // group))
    if f"{prefix}.weight_scale_2" in store.names():
        positive(store, f"{prefix}.weight_scale_2", (), (1,))
    stored = store.read(info.name) ^ 0x88  # from -8 to 7 becomes 0 to 15
    codes = torch.stack((stored & 15, stored >> 4), 1).flatten(0, 1)
    return Grouped.pack(codes, scale, None, 4, group)


def _scaled(store: TensorStore, prefix: str, info: TensorInfo, scheme: Scheme) -> PackedWeight:
    """Eight bits, or two four-bit floats to a byte."""
    name = f"{prefix}.weight_scale"
    rows, columns = info.shape[0], info.shape[1] * 8 // scheme.bits
    if scheme.strategy not in ("group", "tensor_group"):
        weight = scaled(store, info, name, scheme.blocks(rows, columns))
        if weight.block != scheme.blocks(rows, columns):
            raise scheme.contradicts(store.info(name))
        return weight
    group = scheme.block[1]
    if columns % group:
        raise scheme.contradicts(info)
    if scheme.strategy == "group":
        return with_powers(store, info, name, columns, group)
    whole = positive(store, f"{prefix}.weight_scale_2", (), (1,))
    return with_small_scales(store, info, name, group, whole)
