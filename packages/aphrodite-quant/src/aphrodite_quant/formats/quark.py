"""Weights that Quark wrote (`quant_method: quark`): integers, MXFP4, MXFP6, NVFP4, fp8.

`layer_quant_config` states what the modules of its patterns are, `global_quant_config` what the
others are but those of `exclude`. The tensors are ModelOpt's: `<prefix>.weight` float8_e4m3fn or
int8 [N, K] times `weight_scale`, one ([]) or one for each row ([N]); or `weight` uint8 [N, K / 2]
of E2M1 (fp4), or float8_e4m3fn [N, K], times `weight_scale` uint8 [N, K / 32], powers of two, or,
where the scales themselves are rounded (two steps: fp4, then fp8_e4m3 with `is_scale_quant`),
float8_e4m3fn [N, K / 16], and times `weight_scale_2`, one number.
`weight_zero_point` holds zeros.

Other integers (int4, uint4, uint8, and int8 in groups) have scales and zero points for each row
([N]), or, if for every g columns of it, [K / g, N], and then codes are stored as [K, N]. Those of
four bits, zero points too, are eight to an int32, lowest first, `pack_method: reorder` in the order
of AWQ. MXFP6 (fp6_e2m3, fp6_e3m2) is uint8 [N, K * 6 / 8], each row a stream of codes from the
lowest bits up, times powers of two as above.

Scales and zero points of activations (`input_scale`, `input_scale_2`, `input_zero_point`) are
checked and not used. Activations that are rotated before they meet a weight, weights that were
rounded twice, and classes of modules with a way of their own (`layer_type_quant_config`) are
refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from aphrodite_kernels.layouts import Grouped, Lookup, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import awq, dense, modelopt
from aphrodite_quant.modules import matched, named_modules, refuse_named
from aphrodite_quant.numbers import exact, matrix, positive
from aphrodite_quant.reader import Reader
from aphrodite_quant.schemes import Scheme
from aphrodite_quant.small_floats import magnitudes

_DTYPES = {
    "fp8_e4m3": ("float", 8), "fp4": ("float", 4), "fp6_e2m3": ("float", 6),
    "fp6_e3m2": ("float", 6), "int8": ("int", 8), "uint8": ("int", 8), "int4": ("int", 4),
    "uint4": ("int", 4),
}  # fmt: skip
_SHARED = {"per_tensor": "tensor", "per_channel": "channel", "per_group": "group"}
"""What shares a scale."""
_IN_GROUPS = ("fp4", "fp6_e2m3", "fp6_e3m2")
"""Which weights there are in groups only."""
_SIX_BITS = {"fp6_e2m3": magnitudes(2, 3), "fp6_e3m2": magnitudes(3, 2)}
_INTEGERS = {"int4": torch.int32, "uint4": torch.int32, "int8": torch.int8, "uint8": torch.uint8}
"""What their codes are stored in."""
_ORDERS = ("reorder", "order")
_LARGEST_POWER = 254
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
    order = _order(where, stated)
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
        rounding = everywhere if name is None else patterns[name]
        if rounding is None:
            raise TensorError(
                f"{info.file}: tensor {info.name!r} is {info}, but the configuration states no "
                "weight for this module"
            )
        _check_beside(store, prefix)
        if rounding.dtype in _SIX_BITS:
            return _six_bits(store, prefix, rounding)
        if rounding.is_eight_bits_of_rows or rounding.scheme.kind == "float":
            _check_zero(store, prefix, rounding.scheme)
            return modelopt.read(store, prefix, rounding.scheme)
        return _integers(store, prefix, rounding, order)

    return read_module


@dataclass(frozen=True, slots=True)
class _Rounding:
    dtype: str
    scheme: Scheme

    @property
    def is_eight_bits_of_rows(self) -> bool:
        """Signed, without a zero point."""
        return self.dtype == "int8" and self.scheme.strategy != "group" and self.scheme.symmetric


def _order(where: str, stated: Mapping[str, Any]) -> tuple[int, ...]:
    """Of each of eight codes of four bits in a word: its place."""
    method: object = _object(where, stated, "export").get("pack_method", _ORDERS[0])
    if method not in _ORDERS:
        raise FormatError(
            f"{where}: export.pack_method is {method!r}, expected one of {', '.join(_ORDERS)}"
        )
    return awq.PLACES if method == _ORDERS[0] else tuple(range(8))


def _six_bits(store: TensorStore, prefix: str, rounding: _Rounding) -> PackedWeight:
    info = matrix(store, f"{prefix}.weight", torch.uint8)
    rows, columns = info.shape[0], info.shape[1] * 8 // 6
    group = rounding.scheme.block[1]
    if info.shape[1] % 3 or columns % group:
        raise rounding.scheme.contradicts(info)
    powers = exact(store, f"{prefix}.weight_scale", torch.uint8, (rows, columns // group))
    scale = torch.exp2(powers.double() - 127).float()
    if bool((powers > _LARGEST_POWER).any()):
        raise TensorError(
            f"{info.file}: tensor '{prefix}.weight_scale' holds {int(powers.max())}; expected "
            f"{_LARGEST_POWER} at most, as larger powers of two are no float32"
        )
    sizes = _SIX_BITS[rounding.dtype]
    table = torch.tensor([*sizes, *(-size for size in sizes)], device=powers.device)
    return Lookup(store.read(info.name).contiguous(), table[None], scale, group)


def _integers(
    store: TensorStore, prefix: str, rounding: _Rounding, order: tuple[int, ...]
) -> PackedWeight:
    scheme, type_ = rounding.scheme, _INTEGERS[rounding.dtype]
    info = matrix(store, f"{prefix}.weight", type_)
    per_word = 8 if type_ == torch.int32 else 1
    middle = 0 if rounding.dtype.startswith("u") else 1 << scheme.bits - 1
    codes = _codes(store.read(info.name), order)
    codes = codes.T if scheme.strategy == "group" else codes
    rows, columns = codes.shape
    group = scheme.blocks(rows, columns)[1]
    if columns % group:
        raise scheme.contradicts(info)
    shapes = {"tensor": (), "channel": (rows,), "group": (columns // group, rows)}
    shape = shapes[scheme.strategy]
    scale = _by_row(positive(store, f"{prefix}.weight_scale", shape), rows, columns // group)
    name = f"{prefix}.weight_zero_point"
    zero = torch.zeros_like(scale)
    if name in store.names():
        words = (*shape[:-1], rows // per_word) if shape else ()
        stored = exact(store, name, type_, words)
        zero = _codes(stored, order) if shape else stored & (1 << scheme.bits) - 1
        zero = _by_row(zero.to(torch.uint8) ^ middle, rows, columns // group).float()
    elif middle:
        zero = zero + middle
    else:
        store.info(name)
    return Grouped.pack((codes ^ middle).contiguous(), scale, zero, scheme.bits, group)


def _codes(stored: Tensor, order: tuple[int, ...]) -> Tensor:
    """Codes uint8, eight of them in each word of int32, in the last dimension."""
    if stored.dtype != torch.int32:
        return stored.view(torch.uint8)
    words = stored.reshape(-1, stored.shape[-1]).contiguous()
    nibbles = unpack_codes(words.view(torch.uint8), 4).unflatten(1, (-1, 8))[..., list(order)]
    return nibbles.reshape(*stored.shape[:-1], -1)


def _by_row(numbers: Tensor, rows: int, groups: int) -> Tensor:
    """[N, K / g] of one number, [N] or [K / g, N]."""
    if numbers.ndim == 2:
        return numbers.T.contiguous()
    return numbers.reshape(-1, 1).expand(rows, groups).contiguous()


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


def _scheme(where: str, group: object) -> _Rounding | None:
    """What the weights of a group are; None: they are plain."""
    if not isinstance(group, dict):
        raise FormatError(f"{where} is {group!r}, expected an object")
    weight = cast("dict[str, object]", group).get("weight")
    if weight is None:
        return None
    if isinstance(weight, list):
        return _in_steps(where, cast("list[object]", weight))
    if not isinstance(weight, dict):
        raise FormatError(f"{where}.weight is {weight!r}, expected an object or a list of them")
    stated = cast("dict[str, Any]", weight)
    dtype, shared = stated.get("dtype"), stated.get("qscheme")
    strategy = _SHARED.get(str(shared))
    if str(dtype) not in _DTYPES or not strategy or (dtype in _IN_GROUPS and strategy != "group"):
        raise FormatError(
            f"{where}.weight is {dtype} {shared}, which is not supported; present are "
            f"{', '.join(_DTYPES)}, {', '.join(_SHARED)}, and of {', '.join(_IN_GROUPS)} per_group"
        )
    kind, bits = _DTYPES[str(dtype)]
    axis, expected = stated.get("ch_axis"), {"channel": (0,), "group": (1, -1)}.get(strategy)
    if expected is not None and axis not in expected:
        raise FormatError(f"{where}.weight has ch_axis {axis!r}, expected {expected[0]}")
    if (strategy, kind) == ("group", "float") and stated.get("scale_format") != "e8m0":
        raise FormatError(
            f"{where}.weight has scale_format {stated.get('scale_format')!r}, expected 'e8m0'"
        )
    fields = {"type": kind, "num_bits": bits, "strategy": strategy}
    fields |= {name: stated[name] for name in ("group_size", "symmetric") if name in stated}
    return _Rounding(str(dtype), Scheme.of(where, fields))


def _in_steps(where: str, steps: list[object]) -> _Rounding:
    """Four-bit floats whose scales are rounded, too: the only ones of several steps."""
    stated = [cast("dict[str, Any]", step) for step in steps if isinstance(step, dict)]
    named = [f"{step.get('dtype')} {step.get('qscheme')}" for step in stated]
    last = {} if not stated else stated[-1]
    if named != ["fp4 per_group", "fp8_e4m3 per_tensor"] or not last.get("is_scale_quant"):
        raise FormatError(
            f"{where}.weight is rounded in steps, {' and '.join(named) or 'none'}, which is not "
            "supported; present is fp4 per_group whose scales become fp8_e4m3 per_tensor"
        )
    axis, group = stated[0].get("ch_axis"), stated[0].get("group_size")
    if axis not in (1, -1):
        raise FormatError(f"{where}.weight has ch_axis {axis!r}, expected 1")
    fields = {"type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": group}
    return _Rounding("fp4", Scheme.of(where, fields))


def _check_zero(store: TensorStore, prefix: str, scheme: Scheme) -> None:
    """No zero point but 0."""
    zero = f"{prefix}.weight_zero_point"
    if zero in store.names() and bool((store.read(zero) != 0).any()):
        raise scheme.contradicts(store.info(zero))


def _check_beside(store: TensorStore, prefix: str) -> None:
    """Nothing that turns activations; what they would be rounded with is numbers."""
    turned = f"{prefix}.input_rotation"
    if turned in store.names():
        info = store.info(turned)
        raise TensorError(
            f"{info.file}: tensor {turned!r} is {info}, which turns activations and is not "
            "supported"
        )
    zero = f"{prefix}.input_zero_point"
    for scale in (f"{prefix}.input_scale", f"{prefix}.input_scale_2"):
        if scale in store.names():
            positive(store, scale)
    if zero in store.names() and not bool(store.read(zero).isfinite().all()):
        raise TensorError(f"{store.info(zero).file}: tensor {zero!r} is not finite")
