"""AWQ weights (`quant_method: awq`, version gemm): 4 bits with zero points.

With G groups: `<prefix>.qweight` int32 [K, N / 8], `qzeros` int32 [G, N / 8], `scales` [G, N].
Nibbles of a word, lowest first, are for output features 0, 2, 4, 6, 1, 3, 5, 7 of its eight.
Modules without `qweight` have a plain weight.
"""

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError
from aphrodite_quant.formats import dense
from aphrodite_quant.numbers import exact, floating, group_size, matrix
from aphrodite_quant.reader import Reader

_BITS = 4
_PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Of each of eight output features: its nibble."""


def claims(checkpoint: Checkpoint) -> bool:
    """Safetensors whose config says so."""
    stated = checkpoint.quant_config or {}
    return checkpoint.kind == "safetensors" and stated.get("quant_method") == "awq"


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, in groups of the size that the configuration states."""
    stated, where = checkpoint.quant_config or {}, checkpoint.path
    bits, version = stated.get("bits", stated.get("w_bit", _BITS)), stated.get("version", "gemm")
    group = stated.get("group_size", stated.get("q_group_size", 128))
    if bits != _BITS:
        raise FormatError(f"{where}: AWQ has 4 bits, found bits {bits!r}")
    if str(version).lower() != "gemm":
        raise FormatError(f"{where}: AWQ of version {version!r} is not supported, present is gemm")
    if not isinstance(group, int) or (group < 1 and group != -1):
        raise FormatError(f"{where}: group_size is a positive number or -1, found {group!r}")
    return lambda store, prefix: read(store, prefix, group)


def read(store: TensorStore, prefix: str, group: int) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if f"{prefix}.qweight" not in store.names():
        return dense.read(store, prefix)
    stored = store.read(matrix(store, f"{prefix}.qweight", torch.int32).name)
    columns, words = stored.shape
    group = group_size(store, f"{prefix}.qweight", group, columns)
    groups = columns // group
    scale = floating(store, f"{prefix}.scales", (groups, 8 * words))
    zero = _codes(exact(store, f"{prefix}.qzeros", torch.int32, (groups, words)))
    return Grouped.pack(_codes(stored), scale.T.contiguous(), zero.to(scale.dtype), _BITS, group)


def _codes(words: Tensor) -> Tensor:
    """[R, N / 8] int32 as [N, R] uint8, one row for each output feature."""
    nibbles = unpack_codes(words.contiguous().view(torch.uint8), _BITS)
    return nibbles.unflatten(1, (-1, 8))[..., list(_PLACES)].flatten(1).T.contiguous()
