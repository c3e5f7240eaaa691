"""Eight-bit integers that torchao wrote through transformers (`quant_method: torchao`).

Int8WeightOnlyConfig: `<prefix>._weight_qdata` int8 [N, K] beside `_weight_scale` [N, 1] and
`_weight_zero_point` [N, 1], all 0. Modules that were left unquantised have a plain weight.
"""

import torch
from aphrodite_kernels.layouts import PackedWeight, Scaled

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import finite, matrix
from aphrodite_quant.reader import Reader


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind != "gguf" and stated.get("quant_method") == "torchao"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them."""
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The weight of module `prefix`, with its scales if it is quantised."""
    if f"{prefix}._weight_qdata" not in store.names():
        return dense.read_left_alone(store, prefix)
    info = matrix(store, f"{prefix}._weight_qdata", torch.int8)
    rows, columns = info.shape
    scale = finite(store, f"{prefix}._weight_scale", (rows, 1))
    name = f"{prefix}._weight_zero_point"
    if name in store.names() and bool((store.read(name) != 0).any()):
        raise TensorError(f"{info.file}: tensor {name!r} is not 0 everywhere, as it must be")
    return Scaled(store.read(info.name), scale, (1, columns))
