"""Unquantised weights in safetensors: `<prefix>.weight` in float32, float16 or bfloat16."""

import torch
from aphrodite_kernels.layouts import Dense

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.numbers import matrix
from aphrodite_quant.reader import Reader

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def claims(checkpoint: Checkpoint) -> bool:
    """A directory of which neither config nor a side file says that they are quantised."""
    return checkpoint.kind != "gguf" and checkpoint.quant_config is None


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them."""
    return read


def read(store: TensorStore, prefix: str) -> Dense:
    """The matrix `<prefix>.weight`."""
    return Dense(store.read(matrix(store, f"{prefix}.weight", *_DTYPES).name))
