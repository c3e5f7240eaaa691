"""Cases of the ops on heads: rotation, the paged cache, attention."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache, mixed_size
from aphrodite_kernels.backends.reference.attention import gather_kv, quantize
from aphrodite_kernels.testing.case import Case, Draw, assert_close

_HEADS = ((4, 4, 32), (9, 3, 64), (4, 1, 256), (8, 2, 80))  # (H, Hkv, D)
_STEPS = {  # relative and absolute distance of two neighbours, of vectors of normal numbers
    torch.float8_e4m3fn: (2**-3, 2**-9 / 50),
    torch.float8_e5m2: (2**-2, 1e-5),
    torch.int8: (0.0, 0.05),
    torch.uint8: (0.0, 0.8),
}
QUANTIZED = tuple(_STEPS)
_LARGEST = {torch.float8_e4m3fn: 448, torch.float8_e5m2: 57344, torch.int8: 127, torch.uint8: 7}


def stacked_heads(draw: Draw, tokens: int, heads: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """q, k, v as slices of one stacked projection."""
    queries, pairs, size = heads
    stacked = draw.normal(tokens, (queries + 2 * pairs) * size)
    parts = torch.split(stacked, [queries * size, pairs * size, pairs * size], 1)
    return tuple(part.view(tokens, -1, size) for part in parts)


def rotate_and_store_cases() -> Iterator[Case]:
    """Rotation of the whole head, of half of it, by nothing; quantised caches of fewer shapes."""
    for heads, tokens, part in product(_HEADS, (1, 13), (1, 2)):
        rotary = heads[2] // part
        label = f"rotate_and_store-{heads[0]}q{heads[1]}kv{heads[2]}-{rotary}-{tokens}"
        run = partial(_check_rotate_and_store, heads=heads, tokens=tokens, rotary=rotary)
        yield Case(label, run)
    for heads, dtype in product(_HEADS, (None, *QUANTIZED)):
        label = f"rotate_and_store-{heads[1]}kv{heads[2]}-still{suffix(dtype)}"
        yield Case(label, partial(_check_still, heads=heads, dtype=dtype))
    for dtype, fixed in product(QUANTIZED, (False, True)):
        label = f"rotate_and_store-8q2kv80-40-13{suffix(dtype)}{'-fixed' * fixed}"
        size = {"heads": (8, 2, 80), "tokens": 13, "rotary": 40}
        yield Case(label, partial(_check_rotate_and_store, **size, dtype=dtype, fixed=fixed))


def suffix(dtype: torch.dtype | None) -> str:
    """Of the name of a case with such a cache."""
    return "" if dtype is None else f"-{str(dtype).removeprefix('torch.')}"


def _check_still(draw: Draw, heads: tuple[int, int, int], dtype: torch.dtype | None) -> None:
    """Keys that nothing turns or mixes are stored to the bit."""
    _check_rotate_and_store(draw, heads, 13, heads[2], dtype, turned=False)


def _check_rotate_and_store(
    draw: Draw,
    heads: tuple[int, int, int],
    tokens: int,
    rotary: int,
    dtype: torch.dtype | None = None,
    *,
    turned: bool = True,
    fixed: bool = False,
) -> None:
    """In permuted slots of a cache that is full of other numbers."""
    if dtype is not None and dtype not in draw.backend.kv_dtypes:
        return
    angles = draw.float32(40, rotary // 2) * turned
    table = torch.stack((angles.cos(), angles.sin()), 1)
    positions, slots = draw.integers(0, 40, tokens).int(), draw.permutation(6 * 16)[:tokens].long()
    shape = (6, 16, heads[1], heads[2])
    cache = KVCache(draw.normal(*shape), draw.normal(*shape))
    if dtype is not None:
        cache = quantized(cache, dtype)
    if fixed and dtype is not None:
        largest = 2.0 / _LARGEST[dtype]  # some numbers are beyond it
        cache = replace(cache, key_fixed=largest, value_fixed=largest)
    q, k, v = stacked_heads(draw, tokens, heads)
    expected_q, untouched, expected = q.clone(), v.clone(), deepcopy(cache)
    draw.reference().rotate_and_store(expected_q, k.clone(), v, positions, table, expected, slots)
    draw.backend.rotate_and_store(q, k, v, positions, table, cache, slots)
    assert_close(q, expected_q)
    assert torch.equal(v, untouched), "rotate_and_store wrote outside q and k"
    _assert_equal(cache.value, expected.value)
    _assert_equal(cache.value_scale, expected.value_scale)
    if turned or mixed_size(heads[2], cache.key.dtype) > 1:
        _assert_keys_close(cache, expected, slots, heads[2])
    else:
        _assert_equal(cache.key, expected.key)
        _assert_equal(cache.key_scale, expected.key_scale)


def _assert_keys_close(cache: KVCache, expected: KVCache, slots: Tensor, size: int) -> None:
    """Keys at the slots, each number rounded as it may be; all others to the bit."""
    place = slots // cache.block_size, slots % cache.block_size
    if cache.key_scale is None:
        assert_close(cache.key[place], expected.key[place])
    else:
        keys = (gather_kv(each.key, each.key_scale, place, size) for each in (cache, expected))
        relative, absolute = _STEPS[cache.key.dtype]
        torch.testing.assert_close(*keys, rtol=relative, atol=absolute)
    others = torch.ones(cache.key.shape[:2], dtype=torch.bool, device=slots.device)
    others[place] = False
    _assert_equal(cache.key[others], expected.key[others])
    if cache.key_scale is not None and expected.key_scale is not None:
        _assert_equal(cache.key_scale[others], expected.key_scale[others])


def _assert_equal(actual: Tensor | None, expected: Tensor | None) -> None:
    if actual is not None and expected is not None:
        codes = [x.view(torch.int8) if x.itemsize == 1 else x for x in (actual, expected)]
        assert torch.equal(*codes), "the cache differs"


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


def attention_cases() -> Iterator[Case]:
    """Every head shape, batch and spec; sinks and quantised caches of fewer shapes.

    Any two of head shape, batch and spec meet in a case that is not spare.
    """
    for (i, heads), (j, batch), (k, spec) in product(
        enumerate(_HEADS), enumerate(_BATCHES), enumerate(_SPECS)
    ):
        label = f"attention-{heads[0]}q{heads[1]}kv{heads[2]}-{batch}-{spec}"
        run = partial(_check_attention, heads=heads, batch=_BATCHES[batch], spec=_SPECS[spec])
        yield Case(label, run, spare=j != (i + k) % len(_BATCHES))
    for batch, spec in product(_BATCHES, ("full", "window-softcap")):
        label = f"attention-{batch}-{spec}-sinks"
        yield Case(label, partial(_check_sinks, batch=_BATCHES[batch], spec=_SPECS[spec]))
    for batch, dtype in product(_BATCHES, QUANTIZED):
        label = f"attention-{batch}{suffix(dtype)}"
        yield Case(label, partial(_check_quantized, batch=_BATCHES[batch], dtype=dtype))


def _check_sinks(draw: Draw, batch: tuple[tuple[int, int], ...], spec: AttentionSpec) -> None:
    """Sinks from negligible to decisive."""
    sinks = 4 * draw.float32(9)
    _check_attention(draw, (9, 3, 64), batch, replace(spec, sinks=sinks))


def _check_quantized(draw: Draw, batch: tuple[tuple[int, int], ...], dtype: torch.dtype) -> None:
    """A quantised cache, if the backend knows it."""
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
        cache = quantized(cache, dtype)
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


def quantized(cache: KVCache, dtype: torch.dtype) -> KVCache:
    """The cache in a quantised dtype; NaN stays in the scales of slots that belong to no one."""
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
