"""QuIP# weights as quip-sharp itself stores them (`quip_params` in config.json).

With H the Hadamard transform of a power of two, and B a matrix of the order that is left:

    W = diag(SV * Wscale) (B_N ⊗ H) D (B_Kᵀ ⊗ H) diag(SU / scaleWH)

`<prefix>.Qidxs` int64 has D [N, K] in codes of eight weights: [N, K / 32] for E8P12, another such
matrix of residual points to its right for E8P12RVQ4B, and [N, K / 64], a byte for each point of one
bit, for E8P12RVQ3B (`_two_bits` has the order of the others). q, k and v are one matrix `qkv_proj`,
up and gate one `upgate_proj`, whose parts `fuse_scales` multiplies. Who asks for a part gets rows
of the whole, which stack to it again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.hadamard import sylvester
from aphrodite_kernels.layouts.lattice import Lattice
from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from torch import Tensor

from aphrodite_quant.checkpoint import QUIP_SHARP, Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.hadamard import hadamard_base
from aphrodite_quant.numbers import exact, finite, matrix, positive
from aphrodite_quant.reader import Reader

_QKV, _GATE_UP = "qkv_proj", "upgate_proj"
_FUSED = {_QKV: ("q_proj", "k_proj", "v_proj"), _GATE_UP: ("gate_proj", "up_proj")}
"""What one matrix holds, from the first rows to the last of what is made of it here."""
_WHOLE = {part: whole for whole, parts in _FUSED.items() for part in parts}
_ROWS, _COLUMNS = 16, 64
"""Codes of so much of a matrix lie together."""
_AT_ONCE = 1 << 18
"""Words that are unpacked at a time."""
_SIGN_BITS = (7, 6, 3, 2, 5, 4, 1, 0)
"""Of each sign bit of a code: which it is in a code into `Lattice.E8P`."""


@dataclass(frozen=True, slots=True)
class _Codebook:
    id: int
    """In `codebook_id` of every module."""
    version: int
    """Of how codes are packed."""
    width: int
    """Columns of `Qidxs` for `_COLUMNS` weights of a row."""
    residual: Lattice | None
    divisor: float
    """Of residual points, unless the configuration states another."""


_CODEBOOKS = {
    "E8P12": _Codebook(7, 1, 2, None, 1.0),
    "E8P12RVQ3B": _Codebook(18, 0, 3, Lattice.E81B, 2.04),
    "E8P12RVQ4B": _Codebook(17, 1, 4, Lattice.E8P, 3.45),
}


_EXPECTED = {
    "codebook_version": (
        "{}: others pack codes in another way; download the checkpoint again, or quantise it with "
        "the last quip-sharp"
    ),
    "lora_rank": "0: low-rank products are not added",
    "outlier_channel_split": "false: channels of inputs are not doubled",
    "rescale_WH": "true or false",
    "resid_scale_override": "a number",
}
"""Of settings."""


@dataclass(frozen=True, slots=True)
class _Packing:
    codebook: _Codebook
    divisor: float
    rescaled: bool
    """Whether inputs are divided by `scaleWH`."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config has quip-sharp's settings."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "quip_sharp"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as the head of this file has them, of the stated codebook."""
    packing = _packing(checkpoint.path, checkpoint.quant_config or {})
    parts: WeakValueDictionary[tuple[TensorStore, str], Rotated] = WeakValueDictionary()

    def read(store: TensorStore, prefix: str) -> PackedWeight:
        leaf = prefix.rpartition(".")[2]
        whole = prefix.removesuffix(leaf) + _WHOLE.get(leaf, leaf)
        if whole == prefix or not _is_packed(store, whole):
            return _read(store, prefix, packing)
        beside = parts.get((store, whole))
        found = (
            _read_packed(store, whole, packing)
            if beside is None
            else replace(beside, picked=None)  # the same tensors: parts stack to one product
        )
        part = found.rows(_rows(leaf, found))
        parts[store, whole] = part
        return part

    return read


def _packing(where: Path, stated: Mapping[str, Any]) -> _Packing:
    name = stated.get("codebook")
    codebook = _CODEBOOKS.get(name) if isinstance(name, str) else None
    if codebook is None:
        raise FormatError(
            f"{where}: codebook of {QUIP_SHARP} is one of {', '.join(_CODEBOOKS)}, found {name!r}"
        )

    version, rank = stated.get("codebook_version", 0), stated.get("lora_rank", 0)
    rescaled, divisor = stated.get("rescale_WH", False), stated.get("resid_scale_override", -1)
    doubled = stated.get("outlier_channel_split", False)
    expected = {
        "codebook_version": _is_number(version) and version == codebook.version,
        "lora_rank": _is_number(rank) and rank <= 0,
        "outlier_channel_split": doubled is False,
        "rescale_WH": isinstance(rescaled, bool),
        "resid_scale_override": _is_number(divisor) and math.isfinite(divisor),
    }
    for key, fits in expected.items():
        if not fits:
            what = _EXPECTED[key].format(codebook.version)
            raise FormatError(f"{where}: {key} of {QUIP_SHARP} is {stated[key]!r}, expected {what}")
    return _Packing(codebook, divisor if divisor > 0 else codebook.divisor, rescaled)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_packed(store: TensorStore, prefix: str) -> bool:
    return any(f"{prefix}.{leaf}" in store.names() for leaf in ("Qidxs", "Qidxs_0", "SU", "SV"))


def _read(store: TensorStore, prefix: str, packing: _Packing) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if _is_packed(store, prefix):
        return _read_packed(store, prefix, packing)
    return dense.read_left_alone(store, prefix)


def _read_packed(store: TensorStore, prefix: str, packing: _Packing) -> Rotated:
    info = _codes(store, prefix, packing.codebook)
    rows, columns = info.shape[0], info.shape[1] // packing.codebook.width * _COLUMNS
    books = _books(store.read(info.name), packing)
    outputs = finite(store, f"{prefix}.SV", (rows,)).double()
    outputs = outputs * finite(store, f"{prefix}.Wscale", (), (1,)).double()
    inputs = finite(store, f"{prefix}.SU", (columns,))
    if packing.rescaled:
        inputs = inputs / positive(store, f"{prefix}.scaleWH", (columns,))
    left, right = (_base(info, size, books[0].codes.device) for size in (rows, columns))
    name = prefix.rpartition(".")[2]
    if name in _FUSED:
        outputs = outputs * _scales_of_parts(store, prefix, info, columns)
    if name == _GATE_UP:  # stored the other way round
        left = sylvester(2, outputs.device) if left is None else left
        left, outputs = left.roll(len(left) // 2, 0), outputs.roll(rows // 2)
    # A product of weights of the size of W is of a size that half precision holds.
    size = _power_of_two(outputs)
    return Rotated(
        Codebook(books, torch.full((rows,), size, device=outputs.device), rows),
        Rotation((outputs / size).float(), rows, left),
        Rotation(inputs, columns, right),
    )


def _codes(store: TensorStore, prefix: str, codebook: _Codebook) -> TensorInfo:
    """What the file says of the codes, once they and their codebook are as expected."""
    name = f"{prefix}.Qidxs"
    if name not in store.names() and f"{name}_0" in store.names():
        raise TensorError(
            f"{store.info(f'{name}_0').file}: tensor '{name}_0' is of a model that quip-sharp "
            f"saved after it had run it, when scales may be there twice; expected {name!r}: save "
            "it again, with hfize_llama.py"
        )
    info = matrix(store, name, torch.int64)
    if info.shape[0] % _ROWS or info.shape[1] % codebook.width:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected rows in multiples of {_ROWS} and "
            f"columns in multiples of {codebook.width}"
        )
    id_name = f"{prefix}.codebook_id"
    found = int(exact(store, id_name, torch.int64, ()))
    if found != codebook.id:
        raise TensorError(
            f"{info.file}: tensor {id_name!r} holds {found}; expected {codebook.id}, of the "
            f"codebook that {QUIP_SHARP} of the configuration states"
        )
    return info


def _books(stored: Tensor, packing: _Packing) -> tuple[Book, ...]:
    codebook = packing.codebook
    split = stored.shape[1] // codebook.width * 2
    main = Book(_two_bits(stored[:, :split]), Lattice.E8P)
    if codebook.residual is None:
        return (main,)
    rest = stored[:, split:].contiguous()
    codes = _two_bits(rest) if codebook.residual == Lattice.E8P else rest.view(torch.uint8)
    return main, Book(codes, codebook.residual, 1 / packing.divisor)


def _two_bits(stored: Tensor) -> Tensor:
    """Words [N, K / 32] int64 to codes [N, K / 8] int16 into `Lattice.E8P`.

    Words are of 16 rows and 64 columns, [N / 16, K / 64, 8, 4], and each of two rows and two codes
    of both, column by column. Its low four bytes have the high halves of these codes; bit 4 j + i
    of the others is sign bit j of code i.
    """
    rows, columns = len(stored), stored.shape[1] * 4
    words = stored.reshape(rows // _ROWS, -1, 8, 4)
    codes = torch.empty(rows // _ROWS, 8, 2, columns // 2, 2, 2, dtype=torch.uint8)
    codes = codes.to(stored.device)  # [..., row, pair of codes, code, low or high]
    place, signs = torch.arange(4, device=stored.device), _sign_bytes(stored.device)
    step = max(1, _AT_ONCE // (_ROWS * stored.shape[1]))
    for start in range(0, len(words), step):
        part = words[start : start + step].transpose(1, 2).flatten(2)  # [n, 8, K / 16]
        bytes_ = part.contiguous().view(torch.uint8).unflatten(2, (-1, 2, 2, 2))
        high = part.contiguous().view(torch.int32)[..., 1::2, None] >> place & 0x11111111
        high = (high | high >> 3) & 0x03030303
        high = (high | high >> 6) & 0x000F000F
        low = signs[(high | high >> 12) & 0xFF].unflatten(3, (2, 2))
        target = codes[start : start + step]
        target[..., 0] = low.permute(0, 1, 4, 2, 3)
        target[..., 1] = bytes_[..., 0, :, :].permute(0, 1, 4, 2, 3)
    return codes.view(torch.int16).reshape(rows, columns)


def _sign_bytes(device: torch.device) -> Tensor:
    """[256] uint8: of the low half of a code that of the code into `Lattice.E8P`.

    An odd number of set bits flips the lowest, which is of another number there.
    """
    bits = torch.arange(256)[:, None] >> torch.arange(8) & 1
    moved = (bits << torch.tensor(_SIGN_BITS)).sum(1)
    return (moved ^ bits.sum(1) % 2 * (1 << _SIGN_BITS[0] | 1)).to(torch.uint8).to(device)


def _base(info: TensorInfo, size: int, device: torch.device) -> Tensor | None:
    """The matrix beside the power of two that `size` has; None: 1."""
    odd = size // (size & -size)
    if odd == 1:
        return None
    base = hadamard_base(4 * odd, device) if size % (4 * odd) == 0 else None
    if base is None:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}, of {size} channels, for which "
            "quip-sharp has no Hadamard matrix"
        )
    return base


def _scales_of_parts(store: TensorStore, prefix: str, info: TensorInfo, columns: int) -> Tensor:
    """[N] float64: of each row, in the order of the file, the scale of its part."""
    name, rows = prefix.rpartition(".")[2], info.shape[0]
    widths = _widths(name, rows, columns)
    if sum(widths) != rows or min(widths) < 1:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected more rows than {columns}, "
            "which are q's, so that k and v have half of the others each"
        )
    scales = finite(store, f"{prefix}.fuse_scales", (len(widths),)).double()
    return torch.cat([scale.expand(width) for scale, width in zip(scales, widths, strict=True)])


def _widths(name: str, rows: int, columns: int) -> tuple[int, ...]:
    """Rows of each part. All heads of q together are as wide as the input."""
    if name == _GATE_UP:
        return rows // 2, rows // 2
    return columns, (rows - columns) // 2, (rows - columns) // 2


def _rows(part: str, whole: Rotated) -> Tensor:
    """Which rows of the whole a part is."""
    name = _WHOLE[part]
    widths, place = _widths(name, whole.out_features, whole.in_features), _FUSED[name].index(part)
    start = sum(widths[:place])
    return torch.arange(start, start + widths[place], device=whole.device)


def _power_of_two(values: Tensor) -> float:
    """Near their root mean square; 1 if all are 0."""
    typical = float(values.square().mean().sqrt())
    return 2.0 ** math.floor(math.log2(typical)) if typical else 1.0
