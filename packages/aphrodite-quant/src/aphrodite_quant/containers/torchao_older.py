"""Tensors of torchao's older classes as those that took their place, whose parts say the same.

Until 0.14 a quantised matrix was an AffineQuantizedTensor: `block_size`, `quant_min`, `quant_max`,
what zero points are (1: codes, 2: weights, 3: there are none), and `tensor_impl`, whose class says
how codes lie. Around it may be a tensor that says how activations are rounded, which they are not
here.
"""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

Parts = Mapping[str, Any]
_AFFINE = "AffineQuantizedTensor"
_AROUND = "LinearActivationQuantizedTensor"
_SHARDS = ("int4_shard", "int2_shard", "int1_shard")
_CODES, _NONE = 1, 3
"""What zero points are."""


def inside(kind: str, parts: Parts) -> object:
    """The weight within a tensor that adds how activations are rounded, if it is one."""
    return parts.get("original_weight_tensor") if kind == _AROUND else None


def renewed(kind: str, parts: Parts, shape: list[int]) -> tuple[str, Parts]:
    """Class and parts of a newer tensor with the same codes, or what was given.

    `parts` has those of the `tensor_impl` beside its own, its class as `impl`, and those of its
    `int_data` if that has parts. A UintxTensor has codes of odd bits in shards, its first `qdata`.
    """
    if kind != _AFFINE:
        return kind, parts
    impl, block, zeros = parts.get("impl"), parts.get("block_size"), parts.get("zeros")
    common = {"block_size": block, "shape": shape}
    whole = cast("list[object] | tuple[object, ...]", block)
    fits = len(shape) == 2 and isinstance(block, list | tuple) and len(whole) == 2
    if not fits or not all(isinstance(n, int) and n > 0 for n in whole):
        return f"{kind} of {impl} in blocks of {block}", parts
    height, width = cast("list[int]", whole)
    by_block = (shape[0] // height, shape[1] // width)
    if impl == "TensorCoreTiledAQTTensorImpl":
        tensors = {"qdata": parts.get("packed_weight")}
        return "Int4TilePackedTo4dTensor", tensors | common | _of(parts, "scale_and_zero")
    if impl == "Float8AQTTensorImpl" and not parts.get("transposed"):
        tensors = {"qdata": parts.get("float8_data"), "scale": _shaped(parts, "scale", by_block)}
        return "Float8Tensor", common | tensors
    bits = _bits(parts)
    if impl == "PlainAQTTensorImpl" and bits is not None and zeros in (_CODES, _NONE):
        tensors = {"qdata": parts.get("int_data"), "scale": _shaped(parts, "scale", by_block)}
        if isinstance(parts.get("zero_point"), Tensor):
            tensors["zero_point"] = _shaped(parts, "zero_point", by_block)
        stated = {"_type": "torch.dtype", "_data": f"int{bits}"}
        return "IntxUnpackedToInt8Tensor", common | tensors | {"target_dtype": stated}
    shards = [name for name in _SHARDS if name in parts]
    if impl == "UintxAQTTensorImpl" and shards and zeros == _CODES:
        tensors = {"qdata" if name == shards[0] else name: parts[name] for name in shards}
        numbers = {name: _shaped(parts, name, by_block) for name in ("scale", "zero_point")}
        return "UintxTensor", common | tensors | numbers | _of(parts, "bit_width", "pack_dim")
    return f"{kind} of {impl}", parts


def _of(parts: Parts, *names: str) -> dict[str, Any]:
    return {name: parts.get(name) for name in names}


def _shaped(parts: Parts, name: str, shape: tuple[int, int]) -> object:
    """Numbers of blocks in rows and columns; as they are if they are not as many."""
    value = parts.get(name)
    if isinstance(value, Tensor) and value.numel() == shape[0] * shape[1]:
        return value.reshape(shape)
    return value


def _bits(parts: Parts) -> int | None:
    """Of signed codes between `quant_min` and `quant_max`: eight if nothing is said."""
    limits = (parts.get("quant_min"), parts.get("quant_max"))
    known = {(-(1 << bits - 1), (1 << bits - 1) - 1): bits for bits in range(1, 9)}
    return (known | {(None, None): 8}).get(limits)
