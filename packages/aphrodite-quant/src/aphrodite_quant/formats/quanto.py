"""Weights that optimum-quanto wrote (`quant_method: quanto`; `quanto_qmap.json`, by module).

Eight bits: `<prefix>.weight._data` int8 or float8_e4m3fn [N, K] times `weight._scale`, one for each
row ([N, 1]) or one for the matrix ([]).

Two and four bits: a matrix [N, K] is cut row by row into groups of g, which makes [R, g] for R of
them. `weight._data._data` uint8 [ceil(R / m), g] holds m codes to a byte: packed row p of P has
rows p, p + P, … of R, the first in the lowest bits. `weight._scale` and `weight._shift` [R, 1]:
scale * code - shift, or, if shifts are integers, scale * (code - shift). N and K stand nowhere.

`input_scale` and `output_scale` are of activations, which are not quantised: they are read and not
used. Modules that were left unquantised have a plain weight.
"""

from collections.abc import Mapping
from typing import cast

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from torch import Tensor

from aphrodite_quant.blocks import scaled
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite, floating, matrix
from aphrodite_quant.reader import Reader

_BYTES = {"int8": torch.int8, "float8": torch.float8_e4m3fn, "float8_e4m3fn": torch.float8_e4m3fn}
_BITS = {"int4": 4, "int2": 2}
_GROUPS = (128, 96, 64, 32)
"""Columns that share a scale: the first that divides a row; all of them if none does."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config or map of modules says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "quanto"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, of the type that is stated for all, or for each module."""
    stated = checkpoint.quant_config or {}
    if "weights" in stated:
        kind = _kind(checkpoint, stated["weights"])
        return lambda store, prefix: read(store, prefix, kind)
    kinds: dict[str, str] = {}
    for module, said in stated.items():
        if isinstance(said, dict):
            weights = cast("Mapping[str, object]", said).get("weights")
            kinds[module] = _kind(checkpoint, str(weights).removeprefix("q"))
    return lambda store, prefix: read(store, prefix, kinds.get(prefix, "none"))


def read(store: TensorStore, prefix: str, kind: str) -> PackedWeight:
    """The weight of module `prefix`, plain if it was left unquantised."""
    name = f"{prefix}.weight._data"
    bits = _BITS.get(kind)
    if kind == "none" or (name if bits is None else f"{name}._data") not in store.names():
        return dense.read_left_alone(store, prefix)
    for leaf in ("input_scale", "output_scale"):
        if f"{prefix}.{leaf}" in store.names():
            finite(store, f"{prefix}.{leaf}")
    if bits is not None:
        return _groups(store, prefix, bits)
    info = matrix(store, name, _BYTES[kind])
    return scaled(store, info, f"{prefix}.weight._scale", (info.shape[0], info.shape[1]))


def _kind(checkpoint: Checkpoint, weights: object) -> str:
    present = (*_BYTES, *_BITS)
    if weights not in (*present, "none"):
        raise FormatError(
            f"{checkpoint.path}: quanto's weights are {weights!r}, which is not supported; "
            f"present are {', '.join(present)}"
        )
    return str(weights)


class Unshaped(Grouped):
    """Groups one below the other, of a matrix whose shape no tensor tells."""

    def cropped(self, rows: int, columns: int) -> PackedWeight:
        if self.codes.numel() * 8 != rows * columns * self.bits or columns % self.group:
            return super().cropped(rows, columns)
        codes, scale, zero = (
            part.reshape(rows, -1) for part in (self.codes, self.scale, self.zeros())
        )
        return Grouped(codes, scale, zero, self.bits, self.group)


def _groups(store: TensorStore, prefix: str, bits: int) -> Grouped:
    """Every group as a row, which is the matrix if the tool cuts no rows into such groups."""
    info = matrix(store, f"{prefix}.weight._data._data", torch.uint8)
    name = f"{prefix}.weight._scale"
    height, width = info.shape
    several = 8 // bits
    stated = store.info(name).shape
    count = stated[0] if len(stated) == 2 else 0
    if -(-count // several) != height or width * bits % 8:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info} of {bits}-bit codes, and {name!r} is "
            f"{store.info(name)}; expected [R, 1], {several} groups to a packed row"
        )
    scale = floating(store, name, (count, 1))
    words = store.read(info.name)
    parts = [words >> bits * part & (1 << bits) - 1 for part in range(several)]
    codes = torch.cat(parts)[:count]
    kind = Unshaped if width in _GROUPS else Grouped
    return kind.pack(codes, scale, _zero(store, prefix, scale), bits, width)


def _zero(store: TensorStore, prefix: str, scale: Tensor) -> Tensor:
    """The code that stands for 0, float32."""
    name, shape = f"{prefix}.weight._shift", (len(scale), 1)
    if store.info(name).type == torch.int8:
        return exact(store, name, torch.int8, shape).float()
    if bool((scale == 0).any()):
        raise TensorError(
            f"{store.info(name).file}: tensor {f'{prefix}.weight._scale'!r} holds 0.0; expected "
            "numbers that are not 0"
        )
    return finite(store, name, shape) / scale.float()
