"""Rotary position embedding, on the way to the cache."""

import torch
from torch import Tensor

from aphrodite_kernels.attention import KVCache, mixed_size
from aphrodite_kernels.backends.reference.attention import store_kv
from aphrodite_kernels.layouts.hadamard import hadamard


def rotate_and_store(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    table: Tensor,
    cache: KVCache,
    slots: Tensor,
) -> None:
    """Rotate q and k in place, mix them if the cache wants it; write k and v to their slots."""
    rotate(q, k, positions, table)
    mixed = mixed_size(q.shape[2], cache.key.dtype)
    if mixed > 1:
        for heads in (q, k):
            heads.copy_(hadamard(heads.float().unflatten(2, (-1, mixed))).flatten(2))
    store_kv(k, v, cache, slots)


def rotate(q: Tensor, k: Tensor, positions: Tensor, table: Tensor) -> None:
    """Turn the pairs (i, i + rotary / 2) of every head by the angles of its position, in place."""
    cosines, sines = table[positions.long()].unsqueeze(2).unbind(1)  # each [T, 1, rotary / 2]
    half = table.shape[-1]
    for heads in (q, k):
        first = heads[..., :half].float()
        second = heads[..., half : 2 * half].float()
        turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), -1)
        heads[..., : 2 * half] = turned.to(heads.dtype)
