# pyright: basic
"""What every kernel of attention is launched with."""

from typing import Any

import torch
import triton
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.triton.paged import ALIGNED, stored, strides_of, types_of
from aphrodite_kernels.backends.triton.specimen import Specimen

VARYING = ["block_tables", "seq_lens", "query_starts", "requests", "window", "table_stride"]
"""What differs from step to step, or layer to layer: kernels are compiled alike for all of it."""


def arguments(
    q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec, out: Tensor
) -> tuple[Any, ...]:
    """q, out, sinks, block_tables, seq_lens, query_starts, requests, table_stride, window, scale,
    cap, q_strides, cache, strides.
    """
    return (
        q,
        out,
        spec.sinks,
        meta.block_tables,
        meta.seq_lens,
        meta.query_starts,
        len(meta.seq_lens),
        meta.block_tables.stride(0),
        spec.window or 0,
        spec.scale,
        spec.softcap or 1.0,
        q.stride()[:2],
        stored(cache),
        strides_of(cache),
    )


def constants(
    q: Tensor, cache: KVCache, spec: AttentionSpec, *, overlapped: bool
) -> dict[str, Any]:
    """What they are compiled for, and how they are launched."""
    size = q.shape[2]
    return {
        "SIZE": size,
        "BLOCK": triton.next_power_of_2(size),
        "BLOCK_SIZE": cache.block_size,
        "GROUP": q.shape[1] // cache.key.shape[2],
        "WINDOWED": spec.window is not None,
        "CAPPED": spec.softcap is not None,
        "HAS_SINKS": spec.sinks is not None,
        "PDL": overlapped,
        "launch_pdl": overlapped,
    }


def specimen(
    kernel: object,
    dtype: torch.dtype,
    own: dict[str, str],
    constants: dict[str, object],
    walk: tuple[int, int],
    size: int = 128,
    block_size: int = 16,
    capabilities: tuple[int, ...] = (80, 90),
) -> Specimen:
    """For queries in bfloat16, four to a KV head, and a cache of `dtype` under a plain layer.

    own: types of the kernel's own arguments; constants: its own, or other than usual; walk: warps
    and stages.
    """
    pointers = dict.fromkeys(("q", "out"), "*bf16")
    types = {
        **pointers,
        **dict.fromkeys(("block_tables", "seq_lens", "query_starts"), "*i32"),
        **dict.fromkeys(("requests", "table_stride", "window"), "i32"),
        **dict.fromkeys(("scale", "cap"), "fp32"),
        "q_strides": ("i32", "i32"),
        **types_of(dtype),
        **own,
    }
    plain = {
        "SIZE": size,
        "BLOCK": triton.next_power_of_2(size),
        "BLOCK_SIZE": block_size,
        "GROUP": 4,
        **dict.fromkeys(("WINDOWED", "CAPPED", "HAS_SINKS", "PDL"), False),
    }
    places = (name for name, kind in own.items() if kind.startswith("*"))
    return Specimen(
        kernel,
        types,
        {**plain, **constants},
        *walk,
        aligned=(*pointers, *places, "q_strides.0", "q_strides.1", *ALIGNED),
        capabilities=(90,) if dtype == torch.float8_e4m3fn else capabilities,
    )
