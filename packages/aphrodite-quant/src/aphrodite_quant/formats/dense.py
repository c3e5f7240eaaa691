"""Unquantised weights in safetensors: `<prefix>.weight` in float32, float16 or bfloat16."""

import torch
from aphrodite_kernels.layouts import Dense, PackedWeight

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.numbers import matrix
from aphrodite_quant.reader import Reader

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def claims(checkpoint: Checkpoint) -> bool:
    """Safetensors of which neither config nor a side file says that they are quantised."""
    stated = checkpoint.quant_config is not None or checkpoint.side_file("quantize_config.json")
    return checkpoint.kind == "safetensors" and not stated


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them."""
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix `<prefix>.weight`."""
    return Dense(store.read(matrix(store, f"{prefix}.weight", *_DTYPES).name))
