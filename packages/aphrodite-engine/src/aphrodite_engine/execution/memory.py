"""Memory of the device: how much is free, and the pool of KV blocks in it.

The pool is as many pairs of tensors as the largest KV group has layers. Every group uses all pairs,
its i-th layer the i-th: groups own different blocks, so they never meet. See kv.py. Beside each
pair of a quantised pool lies one of scales.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from aphrodite_kernels.attention import KVCache, stored_size
from torch import Tensor

from aphrodite_engine.kv import KVGroup

_CGROUP = Path("/sys/fs/cgroup")
_SCALE = torch.float32


def free_memory(device: torch.device) -> int:
    """Bytes that a program can still take on a device, page cache that can go included."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    limit = _container_limit(_CGROUP)
    return available if limit is None else min(available, limit)


def _container_limit(folder: Path) -> int | None:
    """What the control group (version 2) of a container leaves; None: no limit is set."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
        statistics = (folder / "memory.stat").read_text()
    except OSError:
        return None
    if limit == "max":
        return None
    cached = (
        int(line.split()[1])
        for line in statistics.splitlines()
        if line.startswith("inactive_file ")
    )
    return max(0, int(limit) - used + sum(cached))


def quantized(dtype: torch.dtype) -> bool:
    """Whether vectors of the KV cache have scales."""
    return dtype.itemsize == 1


def block_bytes(groups: Sequence[KVGroup], block_size: int, dtype: torch.dtype) -> int:
    """Bytes of one block: keys and values of `block_size` positions in every pair of the pool."""
    scales = _row_vectors(groups, block_size) * _SCALE.itemsize if quantized(dtype) else 0
    row = _row_elements(groups, block_size, dtype) * dtype.itemsize
    return 2 * pool_depth(groups) * (row + scales)


def pool_depth(groups: Sequence[KVGroup]) -> int:
    """Pairs of tensors in the pool."""
    return max(len(group.layers) for group in groups)


def _row_elements(groups: Sequence[KVGroup], block_size: int, dtype: torch.dtype) -> int:
    """Elements of one block in one tensor: those of the widest kind."""
    return max(
        block_size * group.spec.kv_heads * stored_size(group.spec.head_dim, dtype)
        for group in groups
    )


def _row_vectors(groups: Sequence[KVGroup], block_size: int) -> int:
    """Vectors, each with a scale, of one block in one tensor: those of the kind with most."""
    return max(block_size * group.spec.kv_heads for group in groups)


def allocate_caches(
    groups: Sequence[KVGroup],
    num_blocks: int,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[KVCache, ...]:
    """The pool, as each layer of the model sees it."""

    def pair(row: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        shape = num_blocks, row
        return _zeros(shape, dtype, device), _zeros(shape, dtype, device)

    pool = [
        pair(_row_elements(groups, block_size, dtype), dtype)
        + (pair(_row_vectors(groups, block_size), _SCALE) if quantized(dtype) else ())
        for _ in range(pool_depth(groups))
    ]
    caches: dict[int, KVCache] = {}
    for group in groups:
        vectors = (block_size, group.spec.kv_heads)
        shapes = ((*vectors, stored_size(group.spec.head_dim, dtype)),) * 2 + (vectors,) * 2
        for tensors, layer in zip(pool, group.layers, strict=False):
            caches[layer] = KVCache(*map(_as_blocks, tensors, shapes))
    return tuple(caches[layer] for layer in sorted(caches))


def allocate_most(
    allocate: Callable[[int], tuple[KVCache, ...]], most: int, least: int
) -> tuple[KVCache, ...]:
    """The pool of `most` blocks, or, if the device has no room for that, of fewer.

    Raises:
        MemoryError: not even `least` blocks fit.
    """
    blocks = most
    while True:
        try:
            return allocate(blocks)
        except torch.OutOfMemoryError as error:
            refusal = shortage(error)
        if blocks <= least:
            raise MemoryError(
                f"the device has no room for the {least} KV blocks of one request ({refusal})"
            )
        torch.cuda.empty_cache()
        blocks = max(least, blocks * 9 // 10)


def shortage(error: torch.OutOfMemoryError) -> str:
    """What PyTorch says was asked for, and what there is; without its advice to programmers."""
    return ". ".join(str(error).split(". ")[:3])


def _as_blocks(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[blocks, elements] -> [blocks, *shape], leaving what a narrow kind does not fill."""
    return tensor[:, : math.prod(shape)].view(-1, *shape)


def _zeros(shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # calloc: pages become real when they are written first, so an idle pool costs nothing
    raw = np.zeros((shape[0], shape[1] * dtype.itemsize), np.uint8)
    return torch.frombuffer(raw, dtype=dtype).view(shape)
