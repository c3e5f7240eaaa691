"""Weights that torchao wrote (`quant_method: torchao`), in safetensors or saved by torch.

What the tool calls `<prefix>.weight` is several tensors, `<prefix>._weight_qdata` and others; which
class of its own they make, and of what blocks, is JSON in the metadata of the file. Without it they
are eight bits with a scale for each row. By class, for blocks of [r, c] weights:

- Int8Tensor, IntxUnpackedToInt8Tensor: `qdata` int8 [N, K], `scale` and `zero_point` (may be
  missing) [N / r, K / c]: scale * (code - zero point).
- Float8Tensor: `qdata` float8_e4m3fn [N, K], `scale` [N / r, K / c].
- Int4Tensor: `qdata` int8 [N, K / 2], two codes from -8 on to a byte, the even column in the low
  four bits; `scale` and `zero_point` [K / c, N]: scale * code + zero point.
- Int4TilePackedTo4dTensor: `qdata` int32 [N' / 8, K' / 128, 32, 4], codes in the order in which
  the 32 threads of a tensor core take them; `scale_and_zero` [K' / c, N', 2]: scale * (code - 8) +
  zero. `shape` is [N, K]; the rest pads it.
- UintxTensor: unsigned codes in shards of 4, 2 and 1 bits, lowest bits first, `qdata` and
  `int2_shard`, `int1_shard`: uint8 [N, K * bits / 8], in a byte one code of each of 8 / bits equal
  runs of columns, the first in the lowest bits; scale * (code - zero point).
- MXTensor, NVFP4Tensor: `qdata` float8_e4m3fn [N, K] or uint8 [N, K / 2] of E2M1; `scale`
  float8_e8m0fnu or float8_e4m3fn, [N, K / c] or, if `is_swizzled_scales`, tiles of 128 x 4 in which
  32 rows of 16 numbers hold rows 32 apart side by side; `per_tensor_scale`, one number.

`act_pre_scale` [K] multiplies the input features (AWQ, SmoothQuant). Scales to which activations
are rounded are read and not used: activations are not quantised, which is more exact.
Modules that were left unquantised have a plain weight. Older classes are made these while a file
is opened (`containers/torchao_older.py`).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any, Self, cast

import torch
from aphrodite_kernels.layouts import Grouped, Microscaled, PackedWeight, Scaled
from aphrodite_kernels.layouts.grouped import unpack_codes
from aphrodite_kernels.layouts.runs import Runs
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite, floating, matrix, positive
from aphrodite_quant.reader import Reader

_OF_ACTIVATIONS = ("act_quant_scale", "act_quant_zero_point", "act_per_tensor_scale")
_TILE_ROWS, _TILE_COLUMNS = 8, 128
_SWIZZLED_ROWS, _SWIZZLED_COLUMNS = 128, 4


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "torchao"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, each as the metadata of its file describe it."""
    metadata = checkpoint.metadata
    return lambda store, prefix: read(store, prefix, metadata.get(f"{prefix}.weight"))


def read(store: TensorStore, prefix: str, description: object = None) -> PackedWeight:
    """The weight of module `prefix`, with its scales if it is quantised."""
    parts = [name for name in store.names() if name.startswith(f"{prefix}._weight_")]
    if not parts:
        return dense.read_left_alone(store, prefix)
    codes = f"{prefix}._weight_qdata"
    weight = _Parts.of(
        store, prefix, store.info(codes if codes in parts else parts[0]), description
    )
    for leaf in _OF_ACTIVATIONS:
        if weight.has(leaf):
            store.read(weight.name(leaf))
    found = _CLASSES[weight.kind](weight)
    if not weight.has("act_pre_scale"):
        return found
    width = found.in_features
    factor = finite(store, weight.name("act_pre_scale"), (width,), (1, width))
    return Runs((found,), scale=factor.reshape(width))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tensors that make a weight, and what is said of them."""

    store: TensorStore
    prefix: str
    info: TensorInfo
    """Of `qdata`, or of another part of a class that is not known."""
    kind: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, store: TensorStore, prefix: str, info: TensorInfo, description: object) -> Self:
        where = f"{info.file}: tensor {info.name!r} is {info}"
        if description is None:
            store.info(f"{prefix}._weight_qdata")
            kind = "Float8Tensor" if info.type == torch.float8_e4m3fn else "Int8Tensor"
            return cls(store, prefix, info, kind, {})
        try:
            value: object = json.loads(str(description))
        except (ValueError, RecursionError) as error:
            raise TensorError(f"{where}, and its description is no JSON: {error}") from error
        stated = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        kind, fields = stated.get("_type"), stated.get("_data")
        if kind not in tuple(_CLASSES) or not isinstance(fields, dict):
            raise TensorError(
                f"{where}, of torchao's class {kind!r}, which is not supported; present are "
                f"{', '.join(_CLASSES)}"
            )
        parts: object = stated.get("_tensor_data_names")
        named = cast("list[object]", parts) if isinstance(parts, list) else []
        for leaf in ("qdata", *named):
            store.info(f"{prefix}._weight_{leaf}")
        return cls(store, prefix, info, kind, cast("dict[str, Any]", fields))

    def name(self, leaf: str) -> str:
        return f"{self.prefix}._weight_{leaf}"

    def has(self, leaf: str) -> bool:
        return self.name(leaf) in self.store.names()

    def wrong(self, field: str, expected: str) -> TensorError:
        return TensorError(
            f"{self.info.file}: tensor {self.info.name!r} is {self.info}, and its description has "
            f"{field} {self.fields.get(field)!r}; expected {expected}"
        )

    def pair(self, field: str) -> tuple[int, int]:
        """Two whole numbers above 0."""
        value: object = self.fields.get(field)
        numbers = cast("list[object]", value) if isinstance(value, list) else []
        whole = [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n > 0]
        if len(numbers) != 2 or len(whole) != 2:
            raise self.wrong(field, "two whole numbers above 0")
        return whole[0], whole[1]

    def block(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns that share a scale: of a row, if nothing is said."""
        if not self.fields:
            return 1, columns
        height, width = self.pair("block_size")
        if rows % height or columns % width:
            raise self.wrong("block_size", f"parts of {rows} rows and {columns} columns")
        return height, width


def _eight_bits(weight: _Parts) -> PackedWeight:
    return _integers(weight, 8)


def _few_bits(weight: _Parts) -> PackedWeight:
    stated: object = weight.fields.get("target_dtype")
    name = cast("dict[str, object]", stated).get("_data") if isinstance(stated, dict) else None
    bits = {f"int{bits}": bits for bits in range(1, 9)}.get(str(name))
    if bits is None:
        raise weight.wrong("target_dtype", "one of int1 to int8")
    return _integers(weight, bits)


def _integers(weight: _Parts, bits: int) -> PackedWeight:
    """One code of so many bits to a byte."""
    info = matrix(weight.store, weight.info.name, torch.int8)
    rows, columns = info.shape
    block = weight.block(rows, columns)
    shape = (rows // block[0], columns // block[1])
    scale = floating(weight.store, weight.name("scale"), shape)
    stored, zero = weight.store.read(info.name), _zero_points(weight, shape)
    if bits == 8 and zero is None:
        return Scaled(stored, scale.float(), block)
    middle = 1 << bits - 1
    low, high = (int(edge) for edge in stored.aminmax())
    if low < -middle or high >= middle:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} holds {low} and {high}; expected integers of "
            f"{bits} bits"
        )
    packed = bits if columns * bits % 8 == 0 else 8
    above = torch.zeros_like(scale, dtype=torch.float32) if zero is None else zero
    codes = (stored.to(torch.int16) + middle).to(torch.uint8)
    by_row = [part.repeat_interleave(block[0], 0) for part in (scale, above + middle)]
    return Grouped.pack(codes, by_row[0], by_row[1], packed, block[1])


def _shards(weight: _Parts) -> PackedWeight:
    bits = weight.fields.get("bit_width")
    if type(bits) is not int or not 1 <= bits <= 7 or weight.fields.get("pack_dim") not in (-1, 1):
        raise weight.wrong("bit_width", "1 to 7, with pack_dim -1")
    widths = [width for width in (4, 2, 1) if bits & width]
    info = matrix(weight.store, weight.info.name, torch.uint8)
    rows, columns = info.shape[0], info.shape[1] * (8 // widths[0])
    codes = weight.store.read(info.name).new_zeros((rows, columns))
    above = 0
    for width in widths:
        name = info.name if width == widths[0] else weight.name(f"int{width}_shard")
        shard = exact(weight.store, name, torch.uint8, (rows, columns * width // 8))
        runs = [shard >> at & (1 << width) - 1 for at in range(0, 8, width)]
        codes |= torch.cat(runs, 1) << above
        above += width
    block = weight.block(rows, columns)
    shape = (rows // block[0], columns // block[1])
    scale = floating(weight.store, weight.name("scale"), shape)
    zero = _zero_points(weight, shape)
    zero = torch.zeros_like(scale, dtype=torch.float32) if zero is None else zero
    scale, zero = (part.repeat_interleave(block[0], 0) for part in (scale, zero))
    return Grouped.pack(codes, scale, zero, bits, block[1])


def _zero_points(weight: _Parts, shape: tuple[int, int]) -> Tensor | None:
    """Float32, None if all are 0 or there are none."""
    name = weight.name("zero_point")
    if not weight.has("zero_point"):
        return None
    kind = weight.store.info(name).type
    if kind in (torch.int8, torch.int32, torch.int64):
        zero = exact(weight.store, name, kind, shape).float()
    else:
        zero = finite(weight.store, name, shape)
    return zero if bool(zero.any()) else None


def _eight_bit_floats(weight: _Parts) -> PackedWeight:
    info = matrix(weight.store, weight.info.name, torch.float8_e4m3fn)
    rows, columns = info.shape
    block = weight.block(rows, columns)
    scale = positive(weight.store, weight.name("scale"), (rows // block[0], columns // block[1]))
    return Scaled(weight.store.read(info.name), scale, block)


def _four_bits(weight: _Parts) -> PackedWeight:
    info = matrix(weight.store, weight.info.name, torch.int8)
    rows, columns = info.shape[0], 2 * info.shape[1]
    group = _group(weight, columns)
    shape = (columns // group, rows)
    scale = floating(weight.store, weight.name("scale"), shape).T
    shift = finite(weight.store, weight.name("zero_point"), shape).T
    codes = weight.store.read(info.name).contiguous().view(torch.uint8) ^ 0x88
    return Grouped(codes, scale.contiguous(), _zero(weight, "scale", scale, shift), 4, group)


def _group(weight: _Parts, columns: int) -> int:
    height, group = weight.pair("block_size")
    if height != 1 or columns % group:
        raise weight.wrong("block_size", f"one row and a part of {columns} columns")
    return group


def _zero(weight: _Parts, leaf: str, scale: Tensor, shift: Tensor) -> Tensor:
    """The code that stands for 0, where 8 stands for `shift`: float32."""
    if bool((scale == 0).any()):
        raise TensorError(
            f"{weight.info.file}: tensor {weight.name(leaf)!r} holds a scale of 0.0; expected "
            "numbers above 0"
        )
    return (8 - shift / scale.float()).contiguous()


def _tiles(weight: _Parts) -> PackedWeight:
    info = weight.info
    if info.type != torch.int32 or len(info.shape) != 4 or info.shape[2:] != (32, 4):
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected int32 [N / {_TILE_ROWS}, "
            f"K / {_TILE_COLUMNS}, 32, 4]"
        )
    down, across = info.shape[:2]
    whole = (down * _TILE_ROWS, across * _TILE_COLUMNS)
    rows, columns = weight.pair("shape")
    if rows > whole[0] or columns > whole[1] or columns % 2:
        raise weight.wrong("shape", f"an even number of columns within {list(whole)}")
    group = _group(weight, whole[1])
    both = floating(weight.store, weight.name("scale_and_zero"), (whole[1] // group, whole[0], 2))
    scale, shift = (part.T for part in both.unbind(2))
    zero = _zero(weight, "scale_and_zero", scale, shift.float())
    # Of thread and nibble: four threads of a row take pairs of columns, eight apart.
    stored = weight.store.read(info.name).contiguous().view(torch.uint8)
    nibbles = unpack_codes(stored.reshape(down * across, -1), 4)
    parts = nibbles.view(down, across, 8, 4, 4, 2, 4)
    codes = parts.permute(0, 2, 1, 4, 6, 3, 5).reshape(whole)[:rows, :columns].contiguous()
    part = gcd(columns, group)  # of a group that the padding cuts
    scale, zero = (
        each[:rows].repeat_interleave(group // part, 1)[:, : columns // part].contiguous()
        for each in (scale, zero)
    )
    return Grouped.pack(codes, scale, zero, 4, part)


def _powers(weight: _Parts) -> PackedWeight:
    scale = _small_scales(weight, torch.float8_e8m0fnu)
    if bool((scale.view(torch.uint8) == 255).any()):
        raise TensorError(
            f"{weight.info.file}: tensor {weight.name('scale')!r} holds NaN; expected powers of two"
        )
    return Microscaled(weight.store.read(weight.info.name), scale, weight.fields["block_size"])


def _small(weight: _Parts) -> PackedWeight:
    scale = _small_scales(weight, torch.float8_e4m3fn)
    outer = None
    if weight.has("per_tensor_scale"):
        whole = positive(weight.store, weight.name("per_tensor_scale"), ())
        outer = whole.reshape(1, 1).repeat(len(scale), 1)
    finite(weight.store, weight.name("scale"))
    elements = weight.store.read(weight.info.name)
    return Microscaled(elements, scale, weight.fields["block_size"], outer)


def _small_scales(weight: _Parts, type_: torch.dtype) -> Tensor:
    """Scales of blocks of a row [N, K / c]."""
    info = matrix(weight.store, weight.info.name, torch.float8_e4m3fn, torch.uint8)
    rows, columns = info.shape[0], info.shape[1] * (2 if info.type == torch.uint8 else 1)
    group: object = weight.fields.get("block_size")
    if not isinstance(group, int) or group < 2 or columns % group:
        raise weight.wrong("block_size", f"a part of {columns} columns")
    width, name = columns // group, weight.name("scale")
    if not weight.fields.get("is_swizzled_scales"):
        return exact(weight.store, name, type_, (rows, width))
    down, across = -(-rows // _SWIZZLED_ROWS), -(-width // _SWIZZLED_COLUMNS)
    scale = weight.store.info(name)
    if scale.type != type_ or scale.nbytes != down * across * _SWIZZLED_ROWS * _SWIZZLED_COLUMNS:
        raise TensorError(
            f"{scale.file}: tensor {name!r} is {scale}; expected {str(type_)[6:]}, tiles of "
            f"{_SWIZZLED_ROWS} x {_SWIZZLED_COLUMNS} that cover {[rows, width]}"
        )
    tiles = weight.store.read(name).contiguous().view(torch.uint8)
    by_row = tiles.reshape(down, across, 32, 4, 4).permute(0, 3, 2, 1, 4)
    whole = by_row.reshape(down * _SWIZZLED_ROWS, across * _SWIZZLED_COLUMNS)
    return whole[:rows, :width].contiguous().view(type_)


_CLASSES: Mapping[str, Callable[[_Parts], PackedWeight]] = {
    "Int8Tensor": _eight_bits,
    "IntxUnpackedToInt8Tensor": _few_bits,
    "Float8Tensor": _eight_bit_floats,
    "Int4Tensor": _four_bits,
    "Int4TilePackedTo4dTensor": _tiles,
    "MXTensor": _powers,
    "NVFP4Tensor": _small,
    "UintxTensor": _shards,
}
