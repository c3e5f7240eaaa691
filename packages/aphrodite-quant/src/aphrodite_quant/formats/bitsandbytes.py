"""Weights that bitsandbytes wrote (`quant_method: bitsandbytes`): NF4, FP4 and INT8.

Four bits: `<prefix>.weight` uint8 [N * K / 2, 1], two codes to a byte, the first in the high four
bits, over the matrix row by row; `weight.quant_map` float [16]; `weight.absmax`, one for every
`blocksize` of them, float, or uint8 into `weight.nested_quant_map` [256] times
`weight.nested_absmax` (one for every `nested_blocksize`) plus `nested_offset`; the sizes are JSON
in `weight.quant_state.bitsandbytes__nf4` (or `__fp4`). Blocks may run on into the next row.
INT8: `weight` int8 [N, K] times `SCB` [N] / 127, row by row as `weight_format` (one uint8, 0) says.
Modules that were left unquantised (`llm_int8_skip_modules`) have a plain weight.
"""

import json
from collections.abc import Mapping
from math import gcd, prod
from typing import Any, cast

import torch
from aphrodite_kernels.layouts import Lookup, PackedWeight, Scaled
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import named_modules, refuse_named
from aphrodite_quant.numbers import exact, finite
from aphrodite_quant.reader import Reader

_STATES = ("nf4", "fp4")
_LIST = "llm_int8_skip_modules"


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "bitsandbytes"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, none of them in a module that is stated to be unquantised."""
    plain = named_modules(checkpoint.path, checkpoint.quant_config or {}, _LIST)

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        info = store.info(f"{prefix}.weight")
        if info.type in (torch.int8, torch.uint8):
            refuse_named(info, prefix, plain, _LIST)
        return read(store, prefix)

    return read_module


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix `<prefix>.weight`, with its scales if it is quantised."""
    info = store.info(f"{prefix}.weight")
    if info.type == torch.int8 and len(info.shape) == 2:
        rows, columns = info.shape
        _check_order(store, f"{prefix}.weight_format")
        scale = finite(store, f"{prefix}.SCB", (rows,)).reshape(rows, 1) / 127
        return Scaled(store.read(info.name), scale, (1, columns))
    if info.type != torch.uint8:
        return dense.read_left_alone(store, prefix)
    return _four_bits(store, info)


def _check_order(store: TensorStore, name: str) -> None:
    """TensorError if a weight says that it lies in the order of some GPU's tiles."""
    if name not in store.names():
        return
    info = store.info(name)
    if info.type != torch.uint8 or prod(info.shape) != 1 or int(store.read(name)) != 0:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info} {store.read(name).tolist()}; expected a "
            "uint8 of 0, a weight that lies row by row: save it again with a newer bitsandbytes"
        )


def _four_bits(store: TensorStore, info: TensorInfo) -> PackedWeight:
    state, name = _state(store, info)
    where = f"{info.file}: tensor {name!r}"
    shape = state.get("shape")
    if not isinstance(shape, list) or len(cast("list[Any]", shape)) != 2:
        raise TensorError(f"{where} says the shape is {shape!r}; expected [N, K]")
    rows, columns = (_count(extent, "shape", where) for extent in cast("list[Any]", shape))
    block = _count(state.get("blocksize"), "blocksize", where)
    if columns % 2:
        raise TensorError(
            f"{where} says the shape is {shape}; expected an even number of columns, of which "
            "each byte holds two"
        )
    if prod(info.shape) * 2 != rows * columns:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected two codes to a byte of "
            f"{[rows, columns]} as {name!r} says"
        )
    absmax = _absmax(store, info, state, -(-rows * columns // block), where)
    table = finite(store, f"{info.name}.quant_map", (16,)).reshape(1, 16)
    codes = store.read(info.name).reshape(rows, columns // 2)
    scale, group = _by_rows(absmax, rows, columns, block)
    return Lookup((codes << 4) | (codes >> 4), table, scale, group)


def _by_rows(absmax: Tensor, rows: int, columns: int, block: int) -> tuple[Tensor, int]:
    """Scales [rows, columns / group], and the largest group of which none crosses block or row."""
    group = gcd(columns, block)
    of_each = absmax.repeat_interleave(block // group)[: rows * columns // group]
    return of_each.reshape(rows, columns // group), group


def _absmax(
    store: TensorStore, info: TensorInfo, state: Mapping[str, Any], blocks: int, where: str
) -> Tensor:
    """One scale for every block, [blocks] float32."""
    name = f"{info.name}.absmax"
    if "nested_blocksize" not in state:
        return finite(store, name, (blocks,))
    block = _count(state.get("nested_blocksize"), "nested_blocksize", where)
    offset = state.get("nested_offset")
    if not isinstance(offset, float):
        raise TensorError(f"{where} says nested_offset is {offset!r}; expected a number")
    table = finite(store, f"{info.name}.nested_quant_map", (256,))
    outer = finite(store, f"{info.name}.nested_absmax", (-(-blocks // block),))
    codes = exact(store, name, torch.uint8, (blocks,)).long()
    return table[codes] * outer.repeat_interleave(block)[:blocks] + offset


def _state(store: TensorStore, info: TensorInfo) -> tuple[Mapping[str, Any], str]:
    """The JSON object beside a weight, and its tensor's name."""
    names = [f"{info.name}.quant_state.bitsandbytes__{kind}" for kind in _STATES]
    present = [name for name in names if name in store.names()]
    if len(present) != 1:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info} and needs one of {', '.join(names)} "
            f"beside it, found {', '.join(present) or 'none'}"
        )
    stored = store.info(present[0])
    where = f"{stored.file}: tensor {present[0]!r}"
    if stored.type != torch.uint8:
        raise TensorError(f"{where} is {stored}; expected JSON in uint8")
    try:
        value: object = json.loads(store.read(present[0]).numpy().tobytes())
    except (ValueError, RecursionError) as error:
        raise TensorError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise TensorError(f"{where} holds a JSON {type(value).__name__}, an object is needed")
    return cast("dict[str, Any]", value), present[0]


def _count(value: object, field: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TensorError(f"{where} says {field} is {value!r}; expected a whole number above 0")
    return value
