"""Weights of a GGUF file: `<prefix>.weight` in a plain dtype or in ggml blocks."""

import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType, PackedWeight
from aphrodite_kernels.layouts.ggml.decoders import DECODERS

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.reader import Reader

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def claims(checkpoint: Checkpoint) -> bool:
    """Any GGUF file: each tensor states its own type."""
    return checkpoint.kind == "gguf"


def check_types(store: TensorStore) -> None:
    """TensorError naming the first tensor in ggml blocks that nobody can decode."""
    for name in store.names():
        info = store.info(name)
        if isinstance(info.type, GgmlType) and info.type not in DECODERS:
            present = ", ".join(kind.name for kind in sorted(DECODERS))
            raise TensorError(
                f"{info.file}: tensor {name!r} is {info}; ggml type {info.type.name} is not "
                f"supported, present are {present} and plain floating numbers"
            )


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them."""
    return read


def read(store: TensorStore, prefix: str) -> PackedWeight:
    """The matrix `<prefix>.weight`."""
    info = store.info(f"{prefix}.weight")
    where = f"{info.file}: tensor {info.name!r} is {info}"
    if len(info.shape) != 2:
        raise TensorError(f"{where}; expected a matrix")
    if isinstance(info.type, GgmlType):
        try:
            return GgmlBlocks(store.read(info.name), info.type)
        except LayoutError as error:
            raise TensorError(f"{where}; {error}") from error
    if info.type not in _DTYPES:
        raise TensorError(f"{where}; expected a floating dtype of 32 or 16 bits, or ggml blocks")
    return Dense(store.read(info.name))
