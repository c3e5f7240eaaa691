"""Weights of 2:4 sparsity as their Marlin kernel reads them (`quant_method: gptq_marlin_24`).

Of each four input features two are kept. `<prefix>.B_24` int32 [K / 32, N * bits / 2]: the codes of
those, 4 or 8 bits, in strips as Marlin's but in another order (marlin_tiles.py), 2**(bits - 1)
above what they stand for; `s` [G, N]; `B_meta` int16 [K / 32, 2 N]: four pairs of two bits in a
word, which of its four each kept feature is. They are decoded to all K features: those left out
weigh 0.
"""

from collections.abc import Mapping
from typing import Any

import torch
from aphrodite_kernels.layouts import Grouped, PackedWeight
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import FormatError, TensorError
from aphrodite_quant.formats import dense, gptq
from aphrodite_quant.marlin_tiles import SPARSE, divides, read_scales, read_strips
from aphrodite_quant.numbers import exact, group_size, matrix
from aphrodite_quant.reader import Reader


def claims(checkpoint: Checkpoint) -> bool:
    """A directory whose config, or a side file in its place, says so."""
    stated = checkpoint.quant_config or {}
    method, packing = stated.get("quant_method"), gptq.arrangement(stated)
    ours = method == "gptq_marlin_24" or packing == "marlin_24"
    return checkpoint.kind != "gguf" and ours


def reader(checkpoint: Checkpoint) -> Reader:
    """Weights as `read` has them, in groups of the size that the configuration states."""
    stated: Mapping[str, Any] = checkpoint.quant_config or {}
    if stated.get("bits") not in tuple(SPARSE):
        raise FormatError(
            f"{checkpoint.path}: Marlin 2:4 has 4 or 8 bits, found bits {stated.get('bits')!r}"
        )
    settings = dict(stated) | {"checkpoint_format": "gptq"}
    packing = gptq.Packing.of(checkpoint.path, settings)
    return lambda store, prefix: read(store, prefix, packing)


def read(store: TensorStore, prefix: str, packing: gptq.Packing) -> PackedWeight:
    """The matrix of module `prefix`, plain if it was left unquantised."""
    if f"{prefix}.B_24" not in store.names():
        return dense.read_left_alone(store, prefix)
    bits = packing.bits
    info = matrix(store, f"{prefix}.B_24", torch.int32)
    kept, rows = 16 * info.shape[0], 2 * info.shape[1] // bits
    if not divides((rows, kept)) or 2 * info.shape[1] % bits:
        raise TensorError(
            f"{info.file}: tensor {info.name!r} is {info}; expected [K / 32, N * {bits} / 2] with "
            "N in 64s"
        )
    group = group_size(store, info.name, packing.group, 2 * kept)
    scale = read_scales(store, f"{prefix}.s", rows, 2 * kept // group, sparse=True)
    if f"{prefix}.workspace" in store.names():
        store.read(f"{prefix}.workspace")
    codes = read_strips(store, info.name, (rows, kept), bits, SPARSE[bits])
    whole = torch.full((rows, 2 * kept), 1 << bits - 1, dtype=torch.uint8, device=codes.device)
    whole.scatter_(1, _features(store, f"{prefix}.B_meta", rows, kept), codes)
    return Grouped.pack(whole, scale, None, bits, group)


def _features(store: TensorStore, name: str, rows: int, kept: int) -> Tensor:
    """[N, K / 2] int64: the input feature that each kept code is for."""
    words = exact(store, name, torch.int16, (kept // 16, 2 * rows))
    # Bits of the row and of the column of a word take turns in its place.
    digits = words.reshape(kept // 16, rows // 64, 2, 8, 2, 2, 2)
    by_row = digits.permute(1, 3, 6, 2, 4, 0, 5).reshape(rows, kept // 8, 1).int()
    chosen = by_row >> 2 * torch.arange(8, dtype=torch.int32, device=words.device) & 3
    pairs = chosen.reshape(rows, kept // 2, 2)
    if bool((pairs[..., 0] >= pairs[..., 1]).any()):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} names a feature of four twice or out of "
            "order; expected two of four in order"
        )
    first = 4 * torch.arange(kept // 2, device=words.device)
    return (pairs.long() + first[:, None]).reshape(rows, kept)
