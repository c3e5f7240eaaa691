"""Ternary weights (`quant_method: bitnet`, BitNet b1.58), one scale for each matrix.

Packed: `<prefix>.weight` uint8 [N / 4, K], whose two-bit field i of a byte in row r is the weight
of row i * N / 4 + r, one too high; `weight_scale` [1]. It divides the products of the linear class
`bitlinear`, the default, and multiplies those of `autobitlinear`, whose weights may be stored
unpacked as well. In the mode `online` weights are plain and become ternary as they are loaded:
rounded in units of their mean size. Modules that were not converted are plain. Activations are not
quantised, which is more exact.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from aphrodite_kernels.layouts import Dense, Grouped, PackedWeight
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import matched, named_modules, refuse_named
from aphrodite_quant.numbers import matrix, positive
from aphrodite_quant.reader import Reader

_SETTINGS = {
    "linear_class": ("bitlinear", "autobitlinear"),
    "quantization_mode": ("offline", "online"),
}
_PLAIN = "modules_to_not_convert"
_BITS, _PER_BYTE = 2, 4
_IN_A_LAYER = re.compile(r"(^|\.)layers\.\d+\.")
_SMALLEST_MEAN = 1e-5


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "bitnet"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as the configuration's linear class and mode have them."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    linear_class, mode = (
        _setting(checkpoint, stated, name, known) for name, known in _SETTINGS.items()
    )
    if stated.get("use_rms_norm"):
        raise FormatError(
            f"{checkpoint.path}: use_rms_norm puts a norm into every projection, which no model "
            "here has; only checkpoints without it are read"
        )
    plain = named_modules(checkpoint.path, stated, _PLAIN)
    if mode == "online" and linear_class == "autobitlinear":
        return lambda store, prefix: _read_online(store, prefix, plain)
    return lambda store, prefix: read(store, prefix, plain, divides=linear_class == "bitlinear")


def read(store: TensorStore, prefix: str, plain: list[str], *, divides: bool) -> PackedWeight:
    """The matrix of module `prefix`, plain if it has no scale beside it."""
    info = store.info(f"{prefix}.weight")
    if info.type != torch.uint8 and f"{prefix}.weight_scale" not in store.names():
        return dense.read_left_alone(store, prefix)
    refuse_named(info, prefix, plain, _PLAIN)
    scale = _scale(store, f"{prefix}.weight_scale", divides=divides)
    codes = _packed(store, info) if info.type == torch.uint8 else _unpacked(store, prefix)
    if codes.shape[1] % _PER_BYTE:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected columns in multiples of 4"
        )
    return _ternary(codes, scale)


def _ternary(codes: Tensor, scale: float) -> Grouped:
    """Codes [N, K] of 0, 1 and 2 for -1, 0 and 1 times the scale."""
    rows, columns = codes.shape
    one = torch.ones(rows, 1, device=codes.device)
    return Grouped.pack(codes, one * scale, one, _BITS, columns)


def _packed(store: TensorStore, info: TensorInfo) -> Tensor:
    stored = store.read(matrix(store, info.name, torch.uint8).name)
    codes = torch.cat([stored >> _BITS * field & 3 for field in range(_PER_BYTE)])
    if bool((codes == 3).any()):
        raise TensorError(
            f"{info.file}: tensor {info.name!r} holds the code 3; expected 0, 1 and 2 for -1, 0, 1"
        )
    return codes


def _unpacked(store: TensorStore, prefix: str) -> Tensor:
    weight, info = dense.read(store, prefix).dequantize(), store.info(f"{prefix}.weight")
    wrong = ~torch.isin(weight, torch.tensor([-1.0, 0.0, 1.0], device=weight.device))
    if bool(wrong.any()):
        raise TensorError(
            f"{info.file}: tensor {info.name!r} holds {float(weight[wrong][0])}; expected -1, 0 "
            f"and 1, as '{prefix}.weight_scale' is beside it"
        )
    return (weight + 1).to(torch.uint8)


def _read_online(store: TensorStore, prefix: str, plain: list[str]) -> PackedWeight:
    """Projections of layers as ternary numbers of their mean size; the others as they are."""
    stored = dense.read(store, prefix)
    if not _IN_A_LAYER.search(prefix) or matched(prefix, plain) is not None:
        return stored
    return _rounded(stored)


def _rounded(stored: Dense) -> Grouped:
    weight = stored.dequantize()
    mean = weight.abs().mean().clamp(min=_SMALLEST_MEAN)
    return _ternary((weight / mean).round().clamp(-1, 1).add(1).to(torch.uint8), float(mean))


def _scale(store: TensorStore, name: str, *, divides: bool) -> float:
    scale = float(positive(store, name, (1,), ()))
    return 1 / scale if divides else scale


def _setting(
    checkpoint: Checkpoint, stated: Mapping[str, Any], name: str, known: tuple[str, ...]
) -> str:
    value = stated.get(name, known[0])
    if value not in known:
        raise FormatError(
            f"{checkpoint.path}: {name} is one of {', '.join(known)}, found {value!r}"
        )
    return value
