"""Weights as the Marlin kernel reads them (`quant_method: marlin`, or GPTQ that says so): 4 bits.

`<prefix>.B` int32 [K / 16, 2 N]: codes in strips of 16 input by 64 output features
(marlin_tiles.py), 8 above what they stand for; `s` [G, N], for G groups of input features in order,
or one. `workspace` holds nothing. Modules without `B` are GPTQ's if they have a `qweight`, else
they have a plain weight.
"""

from collections.abc import Mapping
from typing import Any

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import gptq
from aphrodite_quant.marlin_tiles import MARLIN, divides, read_scales, read_strips
from aphrodite_quant.numbers import group_size, matrix
from aphrodite_quant.reader import Reader

_BITS = 4


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config, or a side file in its place, says so."""
    stated = checkpoint.quant_config or {}
    ours = stated.get("quant_method") == "marlin" or gptq.arrangement(stated) == "marlin"
    return checkpoint.kind != "gguf" and ours


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, in groups of the size that the configuration states."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    bits = stated.get("bits", _BITS)
    if bits != _BITS:
        raise FormatError(f"{checkpoint.path}: Marlin has 4 bits, found bits {bits!r}")
    settings = dict(stated) | {"bits": bits, "checkpoint_format": "gptq"}
    packing = gptq.Packing.of(checkpoint.path, settings)
    return lambda store, prefix: read(store, prefix, packing)


def read(store: TensorStore, prefix: str, packing: gptq.Packing) -> PackedWeight:
    """The matrix of module `prefix`."""
    if f"{prefix}.B" not in store.names():
        return gptq.read(store, prefix, packing)
    info = matrix(store, f"{prefix}.B", torch.int32)
    columns, rows = 16 * info.shape[0], info.shape[1] // 2
    if not divides((rows, columns)) or info.shape[1] % 2:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected [K / 16, 2 N] with N in 64s"
        )
    group = group_size(store, info.name, packing.group, columns)
    scale = read_scales(store, f"{prefix}.s", rows, columns // group, sparse=False)
    if f"{prefix}.workspace" in store.names():
        store.read(f"{prefix}.workspace")
    codes = read_strips(store, info.name, (rows, columns), _BITS, MARLIN)
    return Grouped.pack(codes, scale, None, _BITS, group)
