"""Weights that llm-compressor wrote (`quant_method: compressed-tensors`).

`config_groups` and `ignore` state what each module is (`schemes.py`); its tensors are just that.

Integers: `<prefix>.weight_packed` int32 [N, ceil(K * bits / 32)], consecutive columns from the
lowest bits up and 2**(bits - 1) added, with `weight_shape` (pack-quantized), or `weight` int8
[N, K] (int-quantized, naive-quantized). `weight_scale` is one for the matrix, each row, group or
block; `weight_zero_point` of asymmetric ones is packed along N, or int8 as `weight_scale` (those of
a matrix or a block always).
`weight_g_idx` int32 [K] is the group of each column (`actorder: group`).

Floats: `weight` float8_e4m3fn [N, K] with `weight_scale` (float-quantized), or uint8 powers of two
for 32 columns (mxfp8); `weight_packed` uint8 [N, K / 2] of E2M1 with `weight_scale` uint8
[N, K / 32] (mxfp4), or float8_e4m3fn [N, K / 16] and `weight_global_scale`, which divides (nvfp4).

2:4 sparsity (sparse-24-bitmask): `compressed` [N, K / 2] in place of `weight`, with `bitmask` uint8
[N, K / 8], lowest bit first, and `shape`.

Transforms of weights (`transform_config`) are in the weights; those of activations are refused.
Scales of activations (`input_scale`, `input_global_scale`, `input_zero_point`) are checked and not
used: activations are not quantised, which is more exact.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeGuard, cast

import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense, Grouped, Microscaled, PackedWeight, Scaled
from aphrodite_kernels.layouts.grouped import unpack_codes
from torch import Tensor

from aphrodite_quant.blocks import with_powers, with_small_scales
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.numbers import column_order, exact, floating, matrix, positive
from aphrodite_quant.reader import Reader
from aphrodite_quant.schemes import Scheme, Schemes

_MX_GROUP, _NV_GROUP = 32, 16
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
_SPARSE = "sparse-24-bitmask"
_FORMATS = (
    "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision",
    "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "dense", _SPARSE,
)  # fmt: skip

_IN_WEIGHTS = ("weight_input", "weight_output")
"""Where a transform may apply, so that nothing is left to do."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "compressed-tensors"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, each as the configuration states of its module."""
    where: str = str(checkpoint.path)
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    _check_transforms(where, stated.get("transform_config"))
    groups: object = stated.get("config_groups")
    listed = cast("dict[str, object]", groups).values() if isinstance(groups, dict) else ()
    for holder in (stated, stated.get("sparsity_config"), *listed):
        name = cast("dict[str, object]", holder).get("format") if isinstance(holder, dict) else None
        if name is not None and name not in _FORMATS:
            raise FormatError(
                f"{where}: format {name!r} is not supported, present are {', '.join(_FORMATS)}"
            )
    schemes = Schemes.of(checkpoint.path, stated)
    return lambda store, prefix: read(store, prefix, schemes.find(prefix))


def _check_transforms(where: str, stated: object) -> None:
    """FormatError if a transform is left for activations: of weights, it is in them already."""
    if not stated:
        return
    groups = stated.get("config_groups") if _is_object(stated) else None
    if not _is_object(groups):
        raise FormatError(
            f"{where}: transform_config is {stated!r}, expected an object with config_groups"
        )
    for name, group in groups.items():
        applied = group.get("apply") if _is_object(group) else None
        for each in cast("list[object]", applied) if isinstance(applied, list) else [applied]:
            place = each.get("location") if _is_object(each) else each
            if place not in _IN_WEIGHTS:
                raise FormatError(
                    f"{where}: transform_config.config_groups.{name} applies to {place!r}, and "
                    f"activations are not transformed; expected {' or '.join(_IN_WEIGHTS)}"
                )


def _is_object(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def read(store: TensorStore, prefix: str, scheme: Scheme | None) -> PackedWeight:
    """The weight of module `prefix`, which must be as `scheme` states; None: plain."""
    _check_activations(store, prefix)
    packed = f"{prefix}.weight_packed"
    if packed in store.names():
        info = matrix(store, packed, torch.int32, torch.uint8)
        if scheme is None:
            raise _unexpected(info)
        if scheme.kind == "int" and info.type == torch.int32:
            return _packed_integers(store, prefix, info, scheme)
        if (scheme.kind, scheme.bits, info.type) == ("float", 4, torch.uint8):
            return _four_bit_floats(store, prefix, info, scheme)
        raise scheme.contradicts(info)
    info, weight = _weight(store, prefix)
    if scheme is None and info.type in _PLAIN:
        return Dense(weight)
    if scheme is None:
        raise _unexpected(info)
    if (scheme.kind, scheme.bits, info.type) == ("float", 8, torch.float8_e4m3fn):
        return _eight_bit_floats(store, prefix, info, weight, scheme)
    if scheme.kind == "int" and info.type == torch.int8:
        return _integers(store, prefix, info, weight, scheme)
    raise scheme.contradicts(info)


def _check_activations(store: TensorStore, prefix: str) -> None:
    for leaf in ("input_scale", "input_zero_point", "input_global_scale"):
        name = f"{prefix}.{leaf}"
        if name in store.names() and not store.read(name).float().isfinite().all():
            raise TensorError(f"{store.info(name).file}: tensor {name!r} is not finite")


def _unexpected(info: TensorInfo) -> TensorError:
    return TensorError(
        f"{info.file}: tensor {info.name!r} is {info}, but no group of config_groups has this "
        "module as a target, or ignore leaves it unquantised"
    )


def _weight(store: TensorStore, prefix: str) -> tuple[TensorInfo, Tensor]:
    """The matrix [N, K] as stored, filled up with zeros if only half of it is."""
    types = (*_PLAIN, torch.int8, torch.float8_e4m3fn)
    if f"{prefix}.compressed" not in store.names():
        info = matrix(store, f"{prefix}.weight", *types)
        return info, store.read(info.name)
    info = matrix(store, f"{prefix}.compressed", *types)
    rows, columns = info.shape[0], 2 * info.shape[1]
    shape = cast("list[object]", store.read(f"{prefix}.shape").flatten().tolist())
    mask = exact(store, f"{prefix}.bitmask", torch.uint8, (rows, -(-columns // 8)))
    kept = unpack_codes(mask.contiguous(), 1)[:, :columns].bool()
    if shape != [rows, columns] or bool(
        (kept.unflatten(1, (-1, 2)).flatten(1).sum(1) * 2 != columns).any()
    ):
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}, but '{prefix}.shape' is {shape} and "
            f"'{prefix}.bitmask' does not keep half of each row"
        )
    # Torch cannot scatter eight-bit floats on every device; as bytes it can.
    stored = store.read(info.name)
    view = stored.view(torch.uint8) if stored.itemsize == 1 else stored
    full = torch.zeros(rows, columns, dtype=view.dtype, device=view.device)
    full[kept] = view.flatten()
    return replace(info, shape=(rows, columns)), full.view(stored.dtype)


def _scale(
    store: TensorStore, prefix: str, info: TensorInfo, scheme: Scheme, shape: tuple[int, ...]
) -> tuple[Tensor, tuple[int, int]]:
    """Scales [rows, columns] of a matrix of `shape`, and the block that each is for."""
    rows, columns = shape
    block = scheme.blocks(rows, columns)
    if scheme.strategy in ("group", "tensor_group") and columns % block[1]:
        raise scheme.contradicts(info)
    expected = (-(-rows // block[0]), -(-columns // block[1]))
    shapes: list[tuple[int, ...]] = [expected]
    if expected[1] == 1:
        shapes += [expected[:1]] + ([()] if expected[0] == 1 else [])
    return floating(store, f"{prefix}.weight_scale", *shapes).reshape(expected), block


def _eight_bit_floats(
    store: TensorStore, prefix: str, info: TensorInfo, weight: Tensor, scheme: Scheme
) -> PackedWeight:
    name = f"{prefix}.weight_scale"
    if store.info(name).type == torch.uint8:
        if scheme.block != (1, _MX_GROUP) or info.shape[1] % _MX_GROUP:
            raise scheme.contradicts(info)
        return with_powers(store, info, name, info.shape[1], _MX_GROUP)
    if _zero_is_stored(store, prefix, scheme):
        raise scheme.contradicts(store.info(f"{prefix}.weight_zero_point"))
    scale, block = _scale(store, prefix, info, scheme, info.shape)
    return Scaled(weight, scale.float(), block)


def _four_bit_floats(
    store: TensorStore, prefix: str, info: TensorInfo, scheme: Scheme
) -> Microscaled:
    columns = 2 * info.shape[1]
    name, outer = f"{prefix}.weight_scale", f"{prefix}.weight_global_scale"
    group = _MX_GROUP if scheme.strategy == "group" else _NV_GROUP
    if scheme.block != (1, group) or columns % group:
        raise scheme.contradicts(info)
    if scheme.strategy == "group":
        return with_powers(store, info, name, columns, group)
    return with_small_scales(store, info, name, group, 1 / positive(store, outer, (1,), ()))


def _zero_is_stored(store: TensorStore, prefix: str, scheme: Scheme) -> bool:
    """Whether zero points shift the weights; symmetric ones may have zeros only."""
    name = f"{prefix}.weight_zero_point"
    if not scheme.symmetric:
        store.info(name)
        return True
    if name in store.names() and bool((store.read(name) != 0).any()):
        raise scheme.contradicts(store.info(name))
    return False


def _integers(
    store: TensorStore, prefix: str, info: TensorInfo, weight: Tensor, scheme: Scheme
) -> PackedWeight:
    """One integer to a byte."""
    scale, block = _scale(store, prefix, info, scheme, info.shape)
    order = column_order(store, f"{prefix}.weight_g_idx", info.shape[1], block[1])
    if not _zero_is_stored(store, prefix, scheme) and order is None:
        return Scaled(weight, scale.float(), block)
    zero = None if scheme.symmetric else _plain_zero(store, prefix, scheme, scale) + 128
    codes = (weight.view(torch.uint8) ^ 128).contiguous()
    return _grouped(info, codes, scale, zero, 8, block, order)


def _plain_zero(store: TensorStore, prefix: str, scheme: Scheme, scale: Tensor) -> Tensor:
    """Zero points that are not packed, of the shape of the scales, relative to the middle code."""
    name = f"{prefix}.weight_zero_point"
    stored = store.read(name)
    if stored.dtype not in (torch.int8, torch.int32) or stored.numel() not in (1, scale.numel()):
        raise scheme.contradicts(store.info(name))
    return stored.to(scale.dtype).reshape(-1, scale.shape[1]).expand(scale.shape)


def _packed_zero(store: TensorStore, prefix: str, rows: int, groups: int, bits: int) -> Tensor:
    """Zero points [N, G] uint8 of words that are packed along N."""
    height = -(-rows * bits // 32)
    name = f"{prefix}.weight_zero_point"
    words = exact(store, name, torch.int32, (height, groups)).T.contiguous()
    whole = torch.nn.functional.pad(words, (0, -height % bits)).view(torch.uint8)
    return unpack_codes(whole, bits)[:, :rows].T


def _packed_integers(store: TensorStore, prefix: str, info: TensorInfo, scheme: Scheme) -> Grouped:
    """Integers packed to words, row by row: the bit stream of the layout."""
    shape = exact(store, f"{prefix}.weight_shape", torch.int64, (2,))
    rows, columns, bits = int(shape[0]), int(shape[1]), scheme.bits
    if info.shape != (rows, -(-columns * bits // 32)) or columns * bits % 8:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info} for a weight {[rows, columns]}, but "
            f"{scheme.where} states {scheme}"
        )
    scale, block = _scale(store, prefix, info, scheme, (rows, columns))
    zero = None
    if _zero_is_stored(store, prefix, scheme):
        if scheme.strategy in ("group", "channel"):
            zero = _packed_zero(store, prefix, rows, scale.shape[1], bits).to(scale.dtype)
        else:
            zero = _plain_zero(store, prefix, scheme, scale) + (1 << bits - 1)
    codes = store.read(info.name).contiguous().view(torch.uint8)[:, : columns * bits // 8]
    order = column_order(store, f"{prefix}.weight_g_idx", columns, block[1])
    return _grouped(info, codes.contiguous(), scale, zero, bits, block, order)


def _grouped(
    info: TensorInfo, codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int,
    block: tuple[int, int], order: Tensor | None,
) -> Grouped:  # fmt: skip
    """Codes as a bit stream, their columns put in the order of their groups."""
    height, group = block

    def by_row(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(height, 0)[: len(codes)].contiguous()

    scale, zero = by_row(scale), None if zero is None else by_row(zero)
    try:
        weight = Grouped(codes, scale, zero, bits, group)
        if order is None:
            return weight
        return Grouped.pack(weight.unpack()[:, order], scale, zero, bits, group, order)
    except LayoutError as error:
        raise TensorError(f"{info.file}: tensor {info.name!r}: {error}") from error
