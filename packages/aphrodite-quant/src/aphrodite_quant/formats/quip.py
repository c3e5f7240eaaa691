"""QuIP# weights (`quant_method: QUiP`, of QuIP-for-all): points of a lattice between transforms.

`<prefix>.Qidxs` has a code for every eight weights of D [N', K']: for codebook E8P12 int16
[N', K' / 8]; for E8P12RVQ4B int32 [N', K' / 8], the low half of residual points times 1 / 3.45; for
E8P12RVQ3B three bytes each in int32 [N', K' * 3 / 32], the first a residual point of one bit, times
1 / 2.04. `Wscale` is of the matrix, or [N']; with scales `SU` [K] and `SV` [N], or without:

    W = diag(SV) (had_right ⊗ H) D Wscale (had_leftᵀ ⊗ H) diag(SU)

H is the Hadamard transform of a power of two. `had_left` and `had_right`, matrices of the odd
factors, are there unless dimensions are powers of two, or padded to one. Modules without `Qidxs`
have a plain weight.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.lattice import Lattice
from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import named_modules, refuse_named
from aphrodite_quant.numbers import finite, matrix
from aphrodite_quant.reader import Reader

_POINT = 8
"""Weights of one code."""
_FACTORS = {"E8P12": 1.0, "E8P12RVQ3B": 1 / 2.04, "E8P12RVQ4B": 1 / 3.45}
"""Of each codebook: what its residual points are multiplied by."""
_PLAIN = "modules_to_not_convert"


@dataclass(frozen=True, slots=True)
class _Packing:
    codebook: str
    factor: float
    plain: list[str]


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so, in whatever case."""
    stated = checkpoint.quant_config or {}
    method = str(stated.get("quant_method")).lower()
    return checkpoint.kind != "gguf" and method in ("quip", "quip#")


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, of the stated codebook."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    where, codebook = checkpoint.path, stated.get("codebook")
    if codebook not in tuple(_FACTORS):
        raise FormatError(f"{where}: codebook is one of {', '.join(_FACTORS)}, found {codebook!r}")
    if stated.get("rescale_WH"):
        raise FormatError(
            f"{where}: rescale_WH divides inputs by numbers that are not of a weight; only "
            "checkpoints without it are read"
        )
    factor = _factor(where, codebook, stated.get("opt_resid_scale"))
    packing = _Packing(codebook, factor, named_modules(where, stated, _PLAIN))
    return lambda store, prefix: _read(store, prefix, packing)


def _factor(where: Path, codebook: str, stated: object) -> float:
    """Of residual points. The tool states a number, -1 mostly, where there are none, too."""
    if stated is None or codebook == "E8P12":
        return _FACTORS[codebook]
    if not isinstance(stated, int | float) or isinstance(stated, bool) or not 0 < stated < math.inf:
        raise FormatError(f"{where}: opt_resid_scale is a number above 0, found {stated!r}")
    return float(stated)


def _read(store: TensorStore, prefix: str, packing: _Packing) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if f"{prefix}.Qidxs" not in store.names():
        return dense.read_left_alone(store, prefix)
    books = _books(store, prefix, packing)
    rows, points = books[0].codes.shape
    scale = finite(store, f"{prefix}.Wscale", (), (1,), (rows,)).expand(rows).contiguous()
    weight = Codebook(books, scale, rows)
    ones = torch.ones(max(rows, points * _POINT), device=weight.device)
    left = _rotation(store, prefix, ("right", "SV"), ones[:rows])
    right = _rotation(store, prefix, ("left", "SU"), ones[: points * _POINT])
    return Rotated(weight, left, right)


def _books(store: TensorStore, prefix: str, packing: _Packing) -> tuple[Book, ...]:
    """Codes into the lattices."""
    type_ = torch.int16 if packing.codebook == "E8P12" else torch.int32
    info = matrix(store, f"{prefix}.Qidxs", type_)
    refuse_named(info, prefix, packing.plain, _PLAIN)
    stored = store.read(info.name).contiguous()
    if packing.codebook == "E8P12":
        return (Book(stored, Lattice.E8P),)
    if packing.codebook == "E8P12RVQ4B":
        halves = stored.view(torch.int16).unflatten(1, (-1, 2))  # the low half comes first
        main, residual = halves[..., 1].contiguous(), halves[..., 0].contiguous()
        return Book(main, Lattice.E8P), Book(residual, Lattice.E8P, packing.factor)
    if info.shape[1] % 3:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected columns in multiples of 3"
        )
    bytes_ = stored.view(torch.uint8).unflatten(1, (-1, 3))
    main = bytes_[..., 1:].clone(memory_format=torch.contiguous_format).view(torch.int16)[..., 0]
    residual = bytes_[..., 0].contiguous()
    return Book(main.contiguous(), Lattice.E8P), Book(residual, Lattice.E81B, packing.factor)


def _rotation(store: TensorStore, prefix: str, names: tuple[str, str], ones: Tensor) -> Rotation:
    """The transform of one side, of as many channels inside as there are `ones`."""
    (side, channels), inner = names, len(ones)
    scale = _scale(store, f"{prefix}.{channels}", ones)
    name = f"{prefix}.had_{side}"
    if name in store.names():
        base = finite(store, name)
        order = len(base) if base.ndim == 2 else 0
        power = inner // order if order else 0
        if base.shape != (order, order) or order * power != inner or power & (power - 1):
            info = store.info(name)
            raise TensorError(
                f"{info.file}: tensor {name!r} is {info}; expected a square of which {inner} "
                "channels are a power of two"
            )
        return Rotation(scale, inner, base)
    if inner & (inner - 1):
        info = store.info(f"{prefix}.Qidxs")
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}, of {inner} channels, which is no power "
            f"of two, and {name!r} is not there: its Hadamard matrix is not known; quantise it "
            "again with use_rand"
        )
    return Rotation(scale, inner, None)


def _scale(store: TensorStore, name: str, ones: Tensor) -> Tensor:
    """[C] float32, `ones` if they are not there; channels beyond C are padding."""
    if name not in store.names():
        return ones
    info, inner = store.info(name), len(ones)
    if len(info.shape) != 1 or not inner // 2 < info.shape[0] <= inner:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected more than {inner // 2} numbers and "
            f"{inner} at most"
        )
    return finite(store, name)
