# pyright: basic
"""What every kernel of attention is launched with."""

from typing import Any

import torch
import triton
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.triton.attention_tile import scale_up
from aphrodite_kernels.backends.triton.specimen import Specimen

NUMBERS = ("requests", "window", "scale", "cap")
STRIDES = (
    "q_stride",
    "q_head_stride",
    "table_stride",
    "block_stride",
    "slot_stride",
    "head_stride",
    "scale_block_stride",
    "scale_slot_stride",
)
VARYING = ["block_tables", "seq_lens", "query_starts", "requests", "window", "table_stride"]
"""What differs from step to step, or layer to layer: kernels are compiled alike for all of it."""

Arguments = tuple[Tensor | int | float | None, ...]


def pointers(
    q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec, out: Tensor
) -> Arguments:
    """q, key, value, key_scale, value_scale, block_tables, seq_lens, query_starts, sinks, out."""
    return (
        q,
        cache.key,
        cache.value,
        cache.key_scale,
        cache.value_scale,
        meta.block_tables,
        meta.seq_lens,
        meta.query_starts,
        spec.sinks,
        out,
    )


def numbers(meta: AttentionMeta, spec: AttentionSpec) -> Arguments:
    """As NUMBERS."""
    return len(meta.seq_lens), spec.window or 0, spec.scale, spec.softcap or 1.0


def strides(q: Tensor, cache: KVCache, meta: AttentionMeta) -> Arguments:
    """As STRIDES."""
    scale = cache.key_scale
    return (
        *q.stride()[:2],
        meta.block_tables.stride(0),
        *cache.key.stride()[:3],
        *((0, 0) if scale is None else scale.stride()[:2]),
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
        "UP": scale_up(cache.key.dtype),
        "HAS_SINKS": spec.sinks is not None,
        "PDL": overlapped,
        "launch_pdl": overlapped,
    }


_KINDS = {
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.float8_e5m2: "*fp8e5",
}


def specimen(
    kernel: object,
    dtype: torch.dtype,
    own: dict[str, str],
    constants: dict[str, object],
    walk: tuple[int, int],
    size: int = 128,
    block_size: int = 16,
) -> Specimen:
    """For queries in bfloat16, four to a KV head, and a cache of `dtype` under a plain layer.

    own: types of the kernel's own arguments; constants: its own; walk: warps and stages.
    """
    scales = {} if dtype.itemsize > 1 else dict.fromkeys(("key_scale", "value_scale"), "*fp32")
    types = {
        **dict.fromkeys(("q", "out"), "*bf16"),
        **dict.fromkeys(("key", "value"), _KINDS[dtype]),
        **scales,
        **dict.fromkeys(("block_tables", "seq_lens", "query_starts"), "*i32"),
        **dict.fromkeys((*NUMBERS[:2], *STRIDES), "i32"),
        **dict.fromkeys(NUMBERS[2:], "fp32"),
        **own,
    }
    plain = {
        "SIZE": size,
        "BLOCK": triton.next_power_of_2(size),
        "BLOCK_SIZE": block_size,
        "GROUP": 4,
        "UP": scale_up(dtype),
        **dict.fromkeys(("WINDOWED", "CAPPED", "HAS_SINKS", "PDL"), False),
    }
    places = (name for name, kind in types.items() if kind.startswith("*"))
    strides = ("q_stride", "q_head_stride", "block_stride", "slot_stride", "head_stride")
    return Specimen(
        kernel,
        types,
        {**plain, **constants},
        *walk,
        aligned=tuple(name for name in (*places, *strides) if name not in VARYING),
        capabilities=(90,) if dtype == torch.float8_e4m3fn else (80, 90),
    )
