"""Eight-bit float weights (`quant_method: fp8`), scaled per tensor, channel or 128 x 128 block.

`<prefix>.weight` float8_e4m3fn [N, K] beside `weight_scale` ([], [1], [N] or [N, 1]) or
`weight_scale_inv` ([ceil(N / 128), ceil(K / 128)]); either is what a weight is multiplied by.
Modules that were left unquantised have a plain weight. `input_scale`, which fixes the scale of
activations, is checked and not used: rows are scaled by what they hold, which is more exact.
"""

import torch
from aphrodite_kernels.layouts import PackedWeight, Scaled
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.reader import Reader

_BLOCK = 128
_NAMES = ("weight_scale_inv", "weight_scale")


def claims(checkpoint: Checkpoint) -> bool:
    """Safetensors whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind == "safetensors" and stated.get("quant_method") == "fp8"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them."""
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix `<prefix>.weight`, with its scales if it is quantised."""
    info = store.info(f"{prefix}.weight")
    if info.type != torch.float8_e4m3fn:
        return dense.read(store, prefix)
    if len(info.shape) != 2:
        raise TensorError(f"{info.file}: tensor {info.name!r} is {info}; expected a matrix")
    if f"{prefix}.input_scale" in store.names():
        _scale(store, f"{prefix}.input_scale")
    scale, block = _blocks(store, prefix, info)
    return Scaled(store.read(info.name), scale, block)


def _blocks(store: TensorStore, prefix: str, weight: TensorInfo) -> tuple[Tensor, tuple[int, int]]:
    """Scales [rows, columns] float32 and the block that each is for."""
    names = [f"{prefix}.{name}" for name in _NAMES if f"{prefix}.{name}" in store.names()]
    if len(names) != 1:
        raise TensorError(
            f"{weight.file}: tensor {weight.name!r} is {weight} and needs one of "
            f"{', '.join(_NAMES)} beside it, found {', '.join(names) or 'none'}"
        )
    scale, (rows, columns) = _scale(store, names[0]), weight.shape
    shapes: dict[tuple[int, ...], tuple[int, int]] = {
        (): (rows, columns),
        (1,): (rows, columns),
        (1, 1): (rows, columns),
        (rows,): (1, columns),
        (rows, 1): (1, columns),
        (-(-rows // _BLOCK), -(-columns // _BLOCK)): (_BLOCK, _BLOCK),
    }
    block = shapes.get(tuple(scale.shape))
    if block is None:
        raise TensorError(
            f"{weight.file}: tensor {names[0]!r} is {list(scale.shape)}, but the scales of "
            f"{list(weight.shape)} weights are one, {rows}, or one for every {_BLOCK} x {_BLOCK}"
        )
    return scale.reshape(-(-rows // block[0]), -(-columns // block[1])), block


def _scale(store: TensorStore, name: str) -> Tensor:
    info = store.info(name)
    if not isinstance(info.type, torch.dtype) or not info.type.is_floating_point:
        raise TensorError(f"{info.file}: tensor {name!r} is {info}; expected floating numbers")
    scale = store.read(name).float()
    wrong = ~(scale.isfinite() & (scale > 0))
    if bool(wrong.any()):
        raise TensorError(
            f"{info.file}: tensor {name!r} holds {float(scale[wrong].flatten()[0])}; "
            "scales are finite and above 0"
        )
    return scale
