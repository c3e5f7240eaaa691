"""Cases of the ops on heads: rotation, the paged cache, attention."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.reference.attention import quantize
from aphrodite_kernels.testing.case import Case, Draw, assert_close

_HEADS = ((4, 4, 32), (9, 3, 64), (4, 1, 256), (8, 2, 80))  # (H, Hkv, D)


def stacked_heads(draw: Draw, tokens: int, heads: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """q, k, v as slices of one stacked projection."""
    queries, pairs, size = heads
    stacked = draw.normal(tokens, (queries + 2 * pairs) * size)
    parts = torch.split(stacked, [queries * size, pairs * size, pairs * size], 1)
    return tuple(part.view(tokens, -1, size) for part in parts)


def rotate_cases() -> Iterator[Case]:
    """Rotary embedding, of the whole head and of half of it."""
    for heads, tokens, part in product(_HEADS, (1, 11), (1, 2)):
        rotary = heads[2] // part
        label = f"rotate-{heads[0]}q{heads[1]}kv{heads[2]}-{rotary}-{tokens}"
        yield Case(label, partial(_check_rotate, heads=heads, tokens=tokens, rotary=rotary))


def _check_rotate(draw: Draw, heads: tuple[int, int, int], tokens: int, rotary: int) -> None:
    angles = draw.float32(40, rotary // 2)
    table = torch.stack((angles.cos(), angles.sin()), 1)
    positions = draw.integers(0, 40, tokens).int()
    q, k, v = stacked_heads(draw, tokens, heads)
    expected_q, expected_k, untouched = q.clone(), k.clone(), v.clone()
    draw.reference().rotate(expected_q, expected_k, positions, table)
    draw.backend.rotate(q, k, positions, table)
    assert_close(q, expected_q)
    assert_close(k, expected_k)
    assert torch.equal(v, untouched), "rotate wrote outside q and k"


def store_kv_cases() -> Iterator[Case]:
    """Writes to permuted slots."""
    for heads, tokens in product(_HEADS, (1, 13)):
        label = f"store_kv-{heads[1]}kv{heads[2]}-{tokens}"
        yield Case(label, partial(_check_store_kv, heads=heads, tokens=tokens))


def _check_store_kv(draw: Draw, heads: tuple[int, int, int], tokens: int) -> None:
    shape = (6, 16, heads[1], heads[2])
    cache = KVCache(draw.normal(*shape), draw.normal(*shape))
    expected = KVCache(cache.key.clone(), cache.value.clone())
    slots = draw.permutation(6 * 16)[:tokens].long()
    _, k, v = stacked_heads(draw, tokens, heads)
    draw.reference().store_kv(k, v, expected, slots)
    draw.backend.store_kv(k, v, cache, slots)
    assert torch.equal(cache.key, expected.key)
    assert torch.equal(cache.value, expected.value)


_BATCHES: Mapping[str, tuple[tuple[int, int], ...]] = {  # (queries, keys) of each request
    "decode": ((1, 1), (1, 16), (1, 17), (1, 130)),
    "prefill": ((40, 40),),
    "mixed": ((1, 33), (19, 19), (1, 7), (5, 64), (16, 48)),
}
_SPECS: Mapping[str, AttentionSpec] = {
    "full": AttentionSpec(scale=0.125),
    "window": AttentionSpec(scale=0.125, window=12),
    "wide-window": AttentionSpec(scale=0.125, window=1000),
    "softcap": AttentionSpec(scale=0.3, softcap=5.0),
    "window-softcap": AttentionSpec(scale=0.3, window=1, softcap=5.0),
}


_QUANTIZED = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)


def attention_cases() -> Iterator[Case]:
    """Every head shape, batch and spec; sinks and quantised caches of fewer shapes."""
    for heads, batch, spec in product(_HEADS, _BATCHES, _SPECS):
        label = f"attention-{heads[0]}q{heads[1]}kv{heads[2]}-{batch}-{spec}"
        run = partial(_check_attention, heads=heads, batch=_BATCHES[batch], spec=_SPECS[spec])
        yield Case(label, run)
    for batch, spec in product(_BATCHES, ("full", "window-softcap")):
        label = f"attention-{batch}-{spec}-sinks"
        yield Case(label, partial(_check_sinks, batch=_BATCHES[batch], spec=_SPECS[spec]))
    for batch, dtype in product(_BATCHES, _QUANTIZED):
        label = f"attention-{batch}-{str(dtype).removeprefix('torch.')}"
        yield Case(label, partial(_check_quantized, batch=_BATCHES[batch], dtype=dtype))


def _check_sinks(draw: Draw, batch: tuple[tuple[int, int], ...], spec: AttentionSpec) -> None:
    """Sinks from negligible to decisive."""
    sinks = 4 * draw.float32(9)
    _check_attention(draw, (9, 3, 64), batch, replace(spec, sinks=sinks))


def _check_quantized(draw: Draw, batch: tuple[tuple[int, int], ...], dtype: torch.dtype) -> None:
    """A cache of one byte a number, if the backend knows it."""
    if dtype in draw.backend.kv_dtypes:
        _check_attention(draw, (8, 2, 80), batch, _SPECS["full"], dtype)


def _check_attention(
    draw: Draw,
    heads: tuple[int, int, int],
    batch: tuple[tuple[int, int], ...],
    spec: AttentionSpec,
    dtype: torch.dtype | None = None,
) -> None:
    meta = attention_meta(draw, batch, 16)
    cache = attention_cache(draw, meta, heads, spec.window)
    if dtype is not None:
        cache = _quantized(cache, dtype)
    q, _, _ = stacked_heads(draw, int(meta.query_starts[-1]), heads)
    expected = draw.reference().attention(q, cache, meta, spec)
    assert expected.isfinite().all(), "the reference read a slot that belongs to no one"
    assert_close(draw.backend.attention(q, cache, meta, spec), expected)


def attention_meta(
    draw: Draw, batch: tuple[tuple[int, int], ...], block_size: int
) -> AttentionMeta:
    """Requests with blocks in random order; unused table entries are block 0."""
    device = draw.backend.device
    needed = [-(-keys // block_size) for _, keys in batch]
    blocks = draw.permutation(sum(needed)) + 1
    tables = torch.zeros(len(batch), max(needed), dtype=torch.int32, device=device)
    for table, owned in zip(tables, torch.split(blocks, needed), strict=True):
        table[: len(owned)] = owned
    queries = torch.tensor([0, *(count for count, _ in batch)])
    slots = [
        int(table[position // block_size]) * block_size + position % block_size
        for table, (count, keys) in zip(tables, batch, strict=True)
        for position in range(keys - count, keys)
    ]
    return AttentionMeta(
        block_tables=tables,
        seq_lens=torch.tensor([keys for _, keys in batch], dtype=torch.int32, device=device),
        query_starts=queries.cumsum(0).int().to(device),
        slots=torch.tensor(slots, device=device),
        max_query=max(count for count, _ in batch),
        max_seq=max(keys for _, keys in batch),
    )


def attention_cache(
    draw: Draw, meta: AttentionMeta, heads: tuple[int, int, int], window: int | None
) -> KVCache:
    """Numbers where a query may look, NaN elsewhere; blocks that left the window become block 0."""
    shape = (int(meta.block_tables.max()) + 1, 16, heads[1], heads[2])
    cache = KVCache(*(torch.full_like(draw.normal(*shape), torch.nan) for _ in range(2)))
    for request, table in enumerate(meta.block_tables):
        keys = int(meta.seq_lens[request])
        queries = int(meta.query_starts[request + 1] - meta.query_starts[request])
        first = 0 if window is None else max(0, keys - queries - window + 1)
        for position in range(first, keys):
            for part in (cache.key, cache.value):
                part[table[position // 16], position % 16] = draw.normal(heads[1], heads[2])
        table[: first // 16] = 0
    return cache


def _quantized(cache: KVCache, dtype: torch.dtype) -> KVCache:
    """The cache in a dtype of one byte; NaN stays in the scales of slots that belong to no one."""
    (key, key_scale), (value, value_scale) = (
        quantize(part.nan_to_num(0), dtype) for part in (cache.key, cache.value)
    )
    nobody = cache.key[..., 0].isnan()
    return KVCache(
        key,
        value,
        key_scale.masked_fill(nobody, torch.nan),
        value_scale.masked_fill(nobody, torch.nan),
    )
