"""Eight-bit float weights (`quant_method: fp8`), scaled per tensor, channel or block.

`<prefix>.weight` float8_e4m3fn [N, K] beside `weight_scale` ([], [1], [N] or [N, 1]) or
`weight_scale_inv` (one for every `weight_block_size`, 128 x 128 if none is stated); either is what
a weight is multiplied by, in floats or in powers of two (`scale_fmt: ue8m0`). Modules that were
left unquantised (`ignored_layers`, `modules_to_not_convert`) have a plain weight. `input_scale`
(`activation_scheme: static`), which fixes the scale of activations, is checked and not used:
activations are not rounded, or by rows to what they hold, which is more exact.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from aphrodite_kernels.layouts import PackedWeight

from aphrodite_quant.blocks import scaled
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import named_modules, refuse_named
from aphrodite_quant.numbers import matrix, positive
from aphrodite_quant.reader import Reader

_BLOCK = (128, 128)
_NAMES = ("weight_scale_inv", "weight_scale")
_LISTS = ("ignored_layers", "modules_to_not_convert")


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "fp8"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, none of them in a module that is stated to be unquantised."""
    stated, where = checkpoint.quant_config or {}, checkpoint.path
    scheme = stated.get("activation_scheme", "dynamic")
    if scheme not in ("dynamic", "static"):
        raise FormatError(f"{where}: activation_scheme is dynamic or static, found {scheme!r}")
    block, plain = block_size(where, stated), named_modules(where, stated, *_LISTS)

    def read_module(store: TensorStore, prefix: str) -> PackedWeight:
        weight = read(store, prefix, block)
        if store.info(f"{prefix}.weight").type == torch.float8_e4m3fn:
            refuse_named(store.info(f"{prefix}.weight"), prefix, plain, " or ".join(_LISTS))
        return weight

    return read_module


def read(store: TensorStore, prefix: str, block: tuple[int, int] = _BLOCK) -> PackedWeight:
    """The matrix `<prefix>.weight`, with its scales if it is quantised."""
    if store.info(f"{prefix}.weight").type != torch.float8_e4m3fn:
        return dense.read_left_alone(store, prefix)
    weight = matrix(store, f"{prefix}.weight", torch.float8_e4m3fn)
    if f"{prefix}.input_scale" in store.names():
        positive(store, f"{prefix}.input_scale")
    names = [f"{prefix}.{name}" for name in _NAMES if f"{prefix}.{name}" in store.names()]
    if len(names) != 1:
        raise TensorError(
            f"{weight.file}: tensor {weight.name!r} is {weight} and needs one of "
            f"{', '.join(_NAMES)} beside it, found {', '.join(names) or 'none'}"
        )
    return scaled(store, weight, names[0], block)


def block_size(where: Path, stated: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns that share a scale; FormatError if they are not two numbers."""
    value = stated.get("weight_block_size")
    if value is None:
        return _BLOCK
    sizes = cast("list[object]", value) if isinstance(value, list) else []
    numbers = [size for size in sizes if isinstance(size, int) and size > 0]
    if len(numbers) != 2 or len(sizes) != 2:
        raise FormatError(
            f"{where}: weight_block_size is {value!r}, expected two whole numbers above 0"
        )
    return numbers[0], numbers[1]
