"""Rotary position embedding, on the way to the cache."""

from collections.abc import Callable
from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.attention import KVCache, mixed_size
from aphrodite_kernels.backends.cpu.attention import store_kv_on
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require, require_rows, require_whole
from aphrodite_kernels.protocols import RotateAndStore


class RotateArguments(Arguments):
    """Of ops/rotate.cpp."""

    _fields_ = (
        ("q", c_void_p),
        ("k", c_void_p),
        ("positions", c_void_p),
        ("table", c_void_p),
        ("table_rows", c_int64),
        ("half", c_int64),
        ("size", c_int64),
        ("mixed", c_int64),
        ("q_heads", c_int64),
        ("q_row_stride", c_int64),
        ("q_head_stride", c_int64),
        ("k_heads", c_int64),
        ("k_row_stride", c_int64),
        ("k_head_stride", c_int64),
    )


def rotate_and_store_on(runtime: Runtime) -> RotateAndStore:
    """Two native ops, one after the other."""
    rotate, store_kv = _rotate_on(runtime), store_kv_on(runtime)

    def rotate_and_store(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor,
        table: Tensor,
        cache: KVCache,
        slots: Tensor,
    ) -> None:
        rotate(q, k, positions, table, mixed_size(q.shape[2], cache.key.dtype))
        store_kv(k, v, cache, slots)

    return rotate_and_store


def _rotate_on(runtime: Runtime) -> Callable[[Tensor, Tensor, Tensor, Tensor, int], None]:
    """Turn queries and keys by the angles of their positions, then mix so many neighbours."""
    run = runtime.op("rotate")

    def rotate(q: Tensor, k: Tensor, positions: Tensor, table: Tensor, mixed: int) -> None:
        require_rows("q", q, None, None, None)
        rows, _, size = q.shape
        require_rows("k", k, rows, None, size)
        require_whole("positions", positions, rows, dtype=torch.int32)
        require_whole("table", table, None, 2, None)
        half = table.shape[2]
        require(2 * half <= size, f"a table for {2 * half} dimensions does not fit heads of {size}")
        arguments = RotateArguments(
            rows=rows,
            q=q.data_ptr(),
            k=k.data_ptr(),
            positions=positions.data_ptr(),
            table=table.data_ptr(),
            table_rows=table.shape[0],
            half=half,
            size=size,
            mixed=mixed,
            q_heads=q.shape[1],
            q_row_stride=q.stride(0),
            q_head_stride=q.stride(1),
            k_heads=k.shape[1],
            k_row_stride=k.stride(0),
            k_head_stride=k.stride(1),
        )
        run(arguments, q, k, positions, table)

    return rotate
