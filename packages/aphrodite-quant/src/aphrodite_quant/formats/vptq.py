"""VPTQ weights (`quant_method: vptq`): vectors of output features from codebooks, with residuals.

With vectors of v and C centroids, G groups of g input features: `<prefix>.indices` int32
[G, ceil(N / v), words], rows of which are little-endian streams of a code of log2(C) bits, and
above it a residual code; or, not packed, `indices` and `res_indices` [G, ceil(N / v), g], unsigned
numbers of 16 bits. `centroids.weight` [G, C * v], `res_centroids.weight` [G, R * v]. The first
input features may be outliers: `outlier_indices` [1, ceil(N / u), columns], of 16 bits, into
`outlier_centroids.weight` [1, D * u]. Then columns move to `perm` [K], int16 or int64, and are
multiplied by `weight_scale` [K] and shifted by `weight_bias` [K]. Files have numbers of 16 bits as
int16, or with `indices_as_float` as float16 of the same bits. Modules without indices have a plain
weight.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.runs import Runs
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, finite, floating, permutation
from aphrodite_quant.reader import Reader

_WORD = 32
_MOST_CENTROIDS = 1 << 16


@dataclass(frozen=True, slots=True)
class Packing:
    """How one module is packed."""

    rows: int
    """N."""
    groups: int
    size: int
    """Input features of a group."""
    vectors: tuple[int, int]
    """Lengths: of outliers, of the others."""
    centroids: tuple[int, int]
    residual: int
    """Residual centroids; 0: none."""
    outliers: int
    """Input features that are outliers."""
    permuted: bool
    scaled: bool
    packed: bool
    """Whether codes are bit streams."""
    sixteen: torch.dtype
    """What numbers of 16 bits are stored as."""

    @classmethod
    def of(cls, where: str, stated: Mapping[str, Any]) -> Self:
        """From the settings of a module; FormatError if they are not what this format has."""
        vectors = _pair(where, stated, "vector_lens")
        centroids, residuals = (
            _pair(where, stated, name) for name in ("num_centroids", "num_res_centroids")
        )
        apart = vectors[0] > 1 and centroids[0] > 0
        if vectors[1] < 1 or not 2 <= centroids[1] <= _MOST_CENTROIDS:
            raise FormatError(
                f"{where} has vector_lens {list(vectors)} and num_centroids {list(centroids)}; "
                "expected vectors of 1 or more and 2 to 65536 centroids"
            )
        if residuals[0] > 0 or residuals[1] > _MOST_CENTROIDS or residuals[1] == 1:
            raise FormatError(
                f"{where} has num_res_centroids {list(residuals)}; expected none for outliers and "
                "2 to 65536, or none, for the others"
            )
        rows, groups, size = (
            _count(where, stated, name) for name in ("out_features", "group_num", "group_size")
        )
        outliers = _count(where, stated, "outlier_size") if apart else 0
        scaled = _flag(where, stated, "enable_norm")
        if scaled and stated.get("norm_dim", 0) != 0:
            raise FormatError(
                f"{where} has norm_dim {stated['norm_dim']!r}; weight_scale and weight_bias are "
                "of input features, norm_dim 0, in all that VPTQ's own package reads"
            )
        return cls(
            rows,
            groups,
            size,
            vectors,
            centroids,
            residual=max(0, residuals[1]),
            outliers=outliers,
            permuted=_flag(where, stated, "enable_perm"),
            scaled=scaled,
            packed=_flag(where, stated, "is_indice_packed"),
            sixteen=torch.float16
            if _flag(where, stated, "indices_as_float", default=False)
            else torch.int16,
        )


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "vptq"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, each packed as the configuration says of its module."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    layers, shared = (
        _object(checkpoint.path, stated, name)
        for name in ("config_for_layers", "shared_layer_config")
    )

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        if f"{prefix}.indices" not in store.names():
            return dense.read_left_alone(store, prefix)
        settings = layers.get(prefix) or shared.get(prefix.rpartition(".")[2])
        where = f"{checkpoint.path}: the configuration of {prefix!r}"
        if not isinstance(settings, dict):
            raise FormatError(f"{where} is {settings!r}, expected an object of config_for_layers")
        return read(store, prefix, Packing.of(where, cast("dict[str, Any]", settings)))

    return read_module


def read(store: TensorStore, prefix: str, packing: Packing) -> Runs:
    """The matrix of module `prefix`: a run for outliers, if any, and one for every group."""
    width = packing.outliers + packing.groups * packing.size
    parts = [_outliers(store, prefix, packing)] if packing.outliers else list[Codebook]()
    parts += _groups(store, prefix, packing)
    columns = scale = shift = None
    if packing.permuted:
        columns = permutation(store, f"{prefix}.perm", width)
    if packing.scaled:
        scale, shift = (
            finite(store, f"{prefix}.weight_{name}", (width,)) for name in ("scale", "bias")
        )
    return Runs(tuple(parts), columns, scale, shift)


def _groups(store: TensorStore, prefix: str, packing: Packing) -> list[Codebook]:
    length, count = packing.vectors[1], packing.centroids[1]
    name = f"{prefix}.indices"
    beside = name if packing.packed else f"{prefix}.res_indices"
    codes = (_packed if packing.packed else _unpacked)(store, prefix, packing)
    tables = floating(store, f"{prefix}.centroids.weight", (packing.groups, count * length))
    rest = None
    if packing.residual:
        shape = (packing.groups, packing.residual * length)
        rest = floating(store, f"{prefix}.res_centroids.weight", shape)
    parts: list[Codebook] = []
    for group, (main, residual) in enumerate(codes):
        books = [_book(store, name, main, tables[group], length)]
        if rest is not None:
            books.append(_book(store, beside, residual, rest[group], length))
        parts.append(Codebook(tuple(books), None, packing.rows))
    return parts


def _packed(store: TensorStore, prefix: str, packing: Packing) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each group: codes [V, g] int64 and residual ones, out of fields that hold both."""
    bits, more = (max(0, n - 1).bit_length() for n in (packing.centroids[1], packing.residual))
    vectors = -(-packing.rows // packing.vectors[1])
    words = -(-packing.size * (bits + more) // _WORD)
    shape = (packing.groups, vectors, words)
    for stored in exact(store, f"{prefix}.indices", torch.int32, shape):
        fields = _fields(stored, bits + more, packing.size)
        yield fields & (1 << bits) - 1, fields >> bits


def _unpacked(store: TensorStore, prefix: str, packing: Packing) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each group: codes [V, g] int64 and residual ones, the same again if there are none."""
    shape = (packing.groups, -(-packing.rows // packing.vectors[1]), packing.size)
    main = _unsigned(store, f"{prefix}.indices", packing, shape)
    residual = main
    if packing.residual:
        residual = _unsigned(store, f"{prefix}.res_indices", packing, shape)
    return zip(main, residual, strict=True)


def _outliers(store: TensorStore, prefix: str, packing: Packing) -> Codebook:
    length, count = packing.vectors[0], packing.centroids[0]
    name, shape = f"{prefix}.outlier_indices", (1, -(-packing.rows // length), packing.outliers)
    codes = _unsigned(store, name, packing, shape)[0]
    table = floating(store, f"{prefix}.outlier_centroids.weight", (1, count * length))
    return Codebook((_book(store, name, codes, table[0], length),), None, packing.rows)


def _unsigned(store: TensorStore, name: str, packing: Packing, shape: tuple[int, ...]) -> Tensor:
    """Numbers of 16 bits, as int64."""
    return exact(store, name, packing.sixteen, shape).view(torch.int16).long() & 0xFFFF


def _book(store: TensorStore, name: str, codes: Tensor, table: Tensor, length: int) -> Book:
    try:
        return Book.pack(codes, table.view(-1, length, 1))
    except LayoutError as error:
        raise TensorError(f"{store.info(name).file}: tensor {name!r}: {error}") from error


def _fields(words: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` fields of `bits` (32 at most) in rows of int32 words, int64."""
    start = torch.arange(count, device=words.device) * bits
    wide = torch.nn.functional.pad(words.long() & 0xFFFFFFFF, (0, 1))
    word, shift = start // _WORD, start % _WORD
    low, high = wide[:, word] >> shift, wide[:, word + 1] << (_WORD - shift)
    return (low | high) & (1 << bits) - 1


def _object(where: Path, stated: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value: object = stated.get(name) or {}
    if not isinstance(value, dict):
        raise FormatError(f"{where}: {name} is {value!r}, expected an object")
    return cast("dict[str, Any]", value)


def _pair(where: str, stated: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = stated.get(name)
    items = cast("list[object]", value) if isinstance(value, list) else []
    if len(items) != 2 or not all(isinstance(item, int) for item in items):
        raise FormatError(f"{where} has {name} {value!r}; expected two numbers")
    return cast("tuple[int, int]", tuple(items))


def _flag(where: str, stated: Mapping[str, Any], name: str, *, default: bool = True) -> bool:
    value = stated.get(name, default)
    if not isinstance(value, bool):
        raise FormatError(f"{where} has {name} {value!r}; expected true or false")
    return value


def _count(where: str, stated: Mapping[str, Any], name: str) -> int:
    value = stated.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise FormatError(f"{where} has {name} {value!r}; expected a number above 0")
    return value
