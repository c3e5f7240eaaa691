"""Four-bit floats as gpt-oss has them (`quant_method: mxfp4`): matrices, and stacks of experts.

`<prefix>_blocks` uint8 [N, K / 32, 16] of two E2M1 each, the even column in the low four bits, and
`<prefix>_scales` uint8 [N, K / 32], powers of two. A stack has one dimension more in front: expert
7 of `experts.up` is the module `experts.up.7`. Modules that were left alone
(`modules_to_not_convert`) have a plain weight.
"""

import torch
from aphrodite_kernels.layouts import Microscaled, PackedWeight
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.modules import named_modules, refuse_named
from aphrodite_quant.numbers import exact
from aphrodite_quant.reader import Reader

_LIST = "modules_to_not_convert"
_GROUP, _BYTES = 32, 16
"""Columns that share a scale, and the bytes that they fill."""


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "mxfp4"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, none of them in a module that is stated to be unquantised."""
    plain = named_modules(checkpoint.path, checkpoint.quant_config or {}, _LIST)
    return lambda store, prefix: read(store, prefix, plain)


def read(store: TensorStore, prefix: str, plain: list[str]) -> PackedWeight:
    """The matrix of module `prefix`, or of one expert of a stack."""
    stack, _, number = prefix.rpartition(".")
    if f"{prefix}_blocks" in store.names():
        info = _blocks(store, prefix, 3)
        blocks, scales = store.read(info.name), _scales(store, prefix, info)
    elif number.isdecimal() and f"{stack}_blocks" in store.names():
        info = _blocks(store, stack, 4)
        expert = _expert(info, int(number))
        blocks, scales = store.read(info.name)[expert], _scales(store, stack, info)[expert]
    else:
        return dense.read_left_alone(store, prefix)
    refuse_named(info, prefix, plain, _LIST)
    return Microscaled(blocks.flatten(1), scales.view(torch.float8_e8m0fnu), _GROUP)


def _blocks(store: TensorStore, prefix: str, dimensions: int) -> TensorInfo:
    info = store.info(f"{prefix}_blocks")
    where = f"{info.file}: tensor {info.name!r} is {info}"
    if (len(info.shape), dimensions) == (4, 3):
        raise TensorError(
            f"{where}, a stack of {info.shape[0]} experts; expected one matrix [N, K / {_GROUP}, "
            f"{_BYTES}], as experts are read one by one ('{prefix}.0' is the first)"
        )
    packed = info.type == torch.uint8 and info.shape[-1:] == (_BYTES,)
    if not packed or len(info.shape) != dimensions or 0 in info.shape:
        outer = "E, " if dimensions > 3 else ""
        raise TensorError(f"{where}; expected uint8 [{outer}N, K / {_GROUP}, {_BYTES}]")
    return info


def _scales(store: TensorStore, prefix: str, blocks: TensorInfo) -> Tensor:
    name = f"{prefix}_scales"
    scales = exact(store, name, torch.uint8, blocks.shape[:-1])
    if bool((scales == 255).any()):
        raise TensorError(f"{store.info(name).file}: tensor {name!r} holds 255, which is no number")
    return scales


def _expert(stack: TensorInfo, number: int) -> int:
    if number >= stack.shape[0]:
        raise TensorError(
            f"{stack.file}: tensor {stack.name!r} is {stack}, which has no expert {number}"
        )
    return number
