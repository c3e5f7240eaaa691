"""Unquantised weights in safetensors: `<prefix>.weight` in float32, float16 or bfloat16."""

import torch
from aphrodite_kernels.layouts import Dense

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError, listed
from aphrodite_quant.kv_cache import is_cache_scale
from aphrodite_quant.numbers import matrix
from aphrodite_quant.reader import Reader

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def claims(checkpoint: Checkpoint) -> bool:
    """A directory of which neither config nor a side file says that they are quantised."""
    return checkpoint.kind != "gguf" and checkpoint.quant_config is None


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them."""
    return read


def read_left_alone(store: TensorStore, prefix: str) -> Dense:
    """The matrix of a module that was left unquantised, so that nothing but a bias is beside it.

    Raises:
        TensorError: there is more, or no such matrix.
    """
    beside = [
        name for name in store.names() if name.startswith(f"{prefix}.") and not is_cache_scale(name)
    ]
    more = sorted(set(beside) - {f"{prefix}.{leaf}" for leaf in ("weight", "bias")})
    if more:
        file = store.info(more[0]).file
        name = f"{prefix}.weight"
        kind = f"is {store.info(name)}" if name in beside else "is missing"
        raise TensorError(
            f"{file}: tensor {name!r} {kind}, but beside it lies what belongs to a quantised "
            f"weight: {listed(more)}"
        )
    return read(store, prefix)


def read(store: TensorStore, prefix: str) -> Dense:
    """The matrix `<prefix>.weight`."""
    return Dense(store.read(matrix(store, f"{prefix}.weight", *_DTYPES).name))
