"""The paged cache: writing to it, and causal attention over it."""

from collections.abc import Callable
from ctypes import c_float, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache, stored_size
from aphrodite_kernels.backends.cpu.numbers import cache_number_of
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require, require_rows, require_whole
from aphrodite_kernels.errors import ShapeError
from aphrodite_kernels.protocols import Attention


class StoreKVArguments(Arguments):
    """Of ops/store_kv.cpp."""

    _fields_ = (
        ("k", c_void_p),
        ("v", c_void_p),
        ("slots", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("blocks", c_int64),
        ("block_size", c_int64),
        ("heads", c_int64),
        ("size", c_int64),
        ("k_row_stride", c_int64),
        ("k_head_stride", c_int64),
        ("v_row_stride", c_int64),
        ("v_head_stride", c_int64),
        ("block_stride", c_int64),
        ("slot_stride", c_int64),
        ("head_stride", c_int64),
        ("key_scale", c_void_p),
        ("value_scale", c_void_p),
        ("scale_block_stride", c_int64),
        ("scale_slot_stride", c_int64),
        ("key_fixed", c_float),
        ("value_fixed", c_float),
        ("number", c_int32),
    )


class AttentionArguments(Arguments):
    """Of ops/attention.cpp."""

    counts = ("rows", "requests")
    _fields_ = (
        ("requests", c_int64),
        ("q", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("block_tables", c_void_p),
        ("seq_lens", c_void_p),
        ("query_starts", c_void_p),
        ("result", c_void_p),
        ("table_stride", c_int64),
        ("block_size", c_int64),
        ("heads", c_int64),
        ("kv_heads", c_int64),
        ("size", c_int64),
        ("q_row_stride", c_int64),
        ("q_head_stride", c_int64),
        ("block_stride", c_int64),
        ("slot_stride", c_int64),
        ("head_stride", c_int64),
        ("window", c_int64),
        ("scale", c_float),
        ("softcap", c_float),
        ("number", c_int32),
        ("sinks", c_void_p),
        ("key_scale", c_void_p),
        ("value_scale", c_void_p),
        ("scale_block_stride", c_int64),
        ("scale_slot_stride", c_int64),
    )


def _require_cache(cache: KVCache, heads: int | None, size: int) -> int:
    """Check the cache; the number of its dtype."""
    key, value = cache.key, cache.value
    number = cache_number_of(key.dtype)
    width = stored_size(size, key.dtype)
    require_rows("the key cache", key, None, None, heads, width, dtype=key.dtype)
    require_rows("the value cache", value, *key.shape, dtype=key.dtype)
    _require_alike("key and value cache", key, value)
    if key.itemsize == 1:
        _require_scales(cache)
    return number


def _require_scales(cache: KVCache) -> None:
    """Check the scales of a quantised cache."""
    key_scale, value_scale = cache.key_scale, cache.value_scale
    if key_scale is None or value_scale is None:
        raise ShapeError(f"a KV cache of {cache.key.dtype} needs scales")
    require_rows("the scales of keys", key_scale, *cache.key.shape[:3])
    require_rows("the scales of values", value_scale, *cache.key.shape[:3])
    _require_alike("scales of keys and of values", key_scale, value_scale)


def _require_alike(names: str, key: Tensor, value: Tensor) -> None:
    require(
        key.stride() == value.stride(),
        f"{names} are strided differently: {key.stride()} and {value.stride()}",
    )


def _scale_arguments(cache: KVCache) -> tuple[dict[str, int], tuple[Tensor, ...]]:
    """Fields of the scales, and the tensors that they point to."""
    key_scale, value_scale = cache.key_scale, cache.value_scale
    if key_scale is None or value_scale is None:
        return {}, ()
    fields = {
        "key_scale": key_scale.data_ptr(),
        "value_scale": value_scale.data_ptr(),
        "scale_block_stride": key_scale.stride(0),
        "scale_slot_stride": key_scale.stride(1),
    }
    return fields, (key_scale, value_scale)


def store_kv_on(runtime: Runtime) -> Callable[[Tensor, Tensor, KVCache, Tensor], None]:
    """Write each token's key and value to its slot."""
    run = runtime.op("store_kv")

    def store_kv(k: Tensor, v: Tensor, cache: KVCache, slots: Tensor) -> None:
        require_rows("k", k, None, None, None)
        rows, heads, size = k.shape
        require_rows("v", v, rows, heads, size)
        require_whole("slots", slots, rows, dtype=torch.int64)
        number = _require_cache(cache, heads, size)
        scales, kept = _scale_arguments(cache)
        arguments = StoreKVArguments(
            rows=rows,
            k=k.data_ptr(),
            v=v.data_ptr(),
            slots=slots.data_ptr(),
            key=cache.key.data_ptr(),
            value=cache.value.data_ptr(),
            blocks=cache.key.shape[0],
            block_size=cache.block_size,
            heads=heads,
            size=size,
            k_row_stride=k.stride(0),
            k_head_stride=k.stride(1),
            v_row_stride=v.stride(0),
            v_head_stride=v.stride(1),
            block_stride=cache.key.stride(0),
            slot_stride=cache.key.stride(1),
            head_stride=cache.key.stride(2),
            key_fixed=cache.key_fixed or 0.0,
            value_fixed=cache.value_fixed or 0.0,
            number=number,
            **scales,
        )
        run(arguments, k, v, slots, cache.key, cache.value, *kept)

    return store_kv


def attention_on(runtime: Runtime) -> Attention:
    """Attend to the cache; a query's result is equal bit for bit in any batch and chunking."""
    run = runtime.op("attention")

    def attention(q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec) -> Tensor:
        require_rows("q", q, None, None, None)
        rows, heads, size = q.shape
        number = _require_cache(cache, None, size)
        kv_heads = cache.key.shape[2]
        require(heads % kv_heads == 0, f"{heads} heads do not share {kv_heads} KV heads evenly")
        requests = len(meta.seq_lens)
        require_rows("block_tables", meta.block_tables, requests, None, dtype=torch.int32)
        require_whole("seq_lens", meta.seq_lens, requests, dtype=torch.int32)
        require_whole("query_starts", meta.query_starts, requests + 1, dtype=torch.int32)
        sinks = () if spec.sinks is None else (spec.sinks,)
        for each in sinks:
            require_whole("sinks", each, heads)
        scales, kept = _scale_arguments(cache)
        result = runtime.empty(rows, heads, size)
        arguments = AttentionArguments(
            rows=rows,
            requests=requests,
            q=q.data_ptr(),
            key=cache.key.data_ptr(),
            value=cache.value.data_ptr(),
            block_tables=meta.block_tables.data_ptr(),
            seq_lens=meta.seq_lens.data_ptr(),
            query_starts=meta.query_starts.data_ptr(),
            result=result.data_ptr(),
            table_stride=meta.block_tables.stride(0),
            block_size=cache.block_size,
            heads=heads,
            kv_heads=kv_heads,
            size=size,
            q_row_stride=q.stride(0),
            q_head_stride=q.stride(1),
            block_stride=cache.key.stride(0),
            slot_stride=cache.key.stride(1),
            head_stride=cache.key.stride(2),
            window=spec.window or 0,
            scale=spec.scale,
            softcap=spec.softcap or 0.0,
            number=number,
            sinks=sinks[0].data_ptr() if sinks else None,
            **scales,
        )
        tables = (meta.block_tables, meta.seq_lens, meta.query_starts)
        run(arguments, q, cache.key, cache.value, *tables, *sinks, *kept, result)
        return result

    return attention
