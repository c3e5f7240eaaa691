"""AQLM weights (`quant_method: aqlm`): sums of entries of C codebooks of 2**b rectangles each.

In rectangles of `out_group_size` o by `in_group_size` i: `<prefix>.codes` [N / o, K / i, C], int8,
int16 or int32 of which the lowest b bits count; `codebooks` [C, 2**b, o, i]; `scales`
[N / o, 1, 1, 1]. Modules without codes have a plain weight, those of
`linear_weights_not_to_quantize` must.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import named_modules, refuse_named
from aphrodite_quant.numbers import floating
from aphrodite_quant.reader import Reader

_TYPES = (torch.int8, torch.int16, torch.int32)
_PLAIN = "linear_weights_not_to_quantize"
_MOST_BITS = 16


@dataclass(frozen=True, slots=True)
class Packing:
    """What the configuration says of every quantised module."""

    count: int
    """Codebooks."""
    bits: int
    """Of one code."""
    height: int
    """Output features of a rectangle."""
    width: int
    """Input features of a rectangle."""

    @classmethod
    def of(cls, where: Path, stated: Mapping[str, Any]) -> Self:
        """From a configuration; FormatError if it is not one that this format has."""
        fields = ("num_codebooks", "nbits_per_codebook", "out_group_size", "in_group_size")
        values: list[int] = []
        for field in fields:
            value = stated.get(field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise FormatError(f"{where}: {field} is a number above 0, found {value!r}")
            values.append(value)
        if values[1] > _MOST_BITS:
            raise FormatError(f"{where}: nbits_per_codebook is 16 at most, found {values[1]}")
        return cls(*values)


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "aqlm"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, packed as the configuration states."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    packing = Packing.of(checkpoint.path, stated)
    named = named_modules(checkpoint.path, stated, _PLAIN)
    plain = [name.removesuffix(".weight") for name in named]
    return lambda store, prefix: read(store, prefix, packing, plain)


def read(store: TensorStore, prefix: str, packing: Packing, plain: list[str]) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    name = f"{prefix}.codes"
    if name not in store.names():
        return dense.read_left_alone(store, prefix)
    info = store.info(name)
    refuse_named(info, prefix, plain, _PLAIN)
    if info.type not in _TYPES or len(info.shape) != 3 or info.shape[2] != packing.count:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected int8, int16 or int32 "
            f"[rows, columns, {packing.count}]"
        )
    rows = info.shape[0]
    shape = (packing.count, 1 << packing.bits, packing.height, packing.width)
    entries = floating(store, f"{prefix}.codebooks", shape)
    scale = floating(store, f"{prefix}.scales", (rows, 1, 1, 1)).reshape(rows)
    codes = _codes(store, name, packing.bits)
    books = tuple(Book.pack(codes[..., c], entries[c]) for c in range(packing.count))
    return Codebook(books, scale, rows * packing.height)


def _codes(store: TensorStore, name: str, bits: int) -> Tensor:
    """Codes as unsigned numbers, int32."""
    stored = store.read(name).int()
    wrong = (stored < -(1 << bits - 1)) | (stored >= 1 << bits)
    if bool(wrong.any()):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} holds the code {int(stored[wrong][0])}; "
            f"expected {bits} bits"
        )
    return stored & (1 << bits) - 1
