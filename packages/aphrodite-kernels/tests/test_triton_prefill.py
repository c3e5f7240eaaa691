"""Prefill attention by itself: every kind of cache, and rows that are equal in any company."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.reference.attention import attention, quantize
from aphrodite_kernels.backends.triton import device_obstacle
from aphrodite_kernels.testing.case import assert_close

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.attention_prefill import PrefillTiling, prefill_attention
from aphrodite_kernels.backends.triton.store_kv import rotate_and_store_on

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = PrefillTiling(16, 32, num_warps=4, num_stages=2)
DESCRIBED = PrefillTiling(16, 16, num_warps=4, num_stages=2, described=True)
MIXED = ((1, 33), (19, 19), (1, 7), (0, 0), (5, 64), (16, 48))
"""(queries, keys) of each request."""
SPECS = {
    "full": AttentionSpec(scale=0.125),
    "window": AttentionSpec(scale=0.125, window=12),
    "wide": AttentionSpec(scale=0.125, window=40),
    "softcap": AttentionSpec(scale=0.3, softcap=5.0),
    "sinks": AttentionSpec(scale=0.125, window=33, sinks=torch.linspace(-4, 8, 8).to(DEVICE)),
}
KINDS = (None, torch.uint8, torch.int8, torch.float8_e5m2, torch.float8_e4m3fn)


def random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def meta_of(tables, batch):
    starts = torch.tensor([0, *(queries for queries, _ in batch)]).cumsum(0)
    return AttentionMeta(
        block_tables=tables.int().to(DEVICE),
        seq_lens=torch.tensor([keys for _, keys in batch]).int().to(DEVICE),
        query_starts=starts.int().to(DEVICE),
        slots=torch.zeros(0, dtype=torch.int64, device=DEVICE),
        max_query=max(queries for queries, _ in batch),
        max_seq=max(keys for _, keys in batch),
    )


def tables_of(batch):
    needed = [-(-keys // 16) for _, keys in batch]
    blocks = torch.randperm(sum(needed), generator=torch.Generator().manual_seed(2)) + 1
    tables = torch.zeros(len(batch), max(needed), dtype=torch.int64)
    for table, owned in zip(tables, blocks.split(needed), strict=True):
        table[: len(owned)] = owned
    return tables


def cache_of(tables, batch, pairs, size, kind=None, window=None, *, described=False):
    """Numbers where a query looks, NaN elsewhere; blocks that left the window become block 0.

    described: elsewhere values and their scales are 1, as a cache has none that are not finite.
    """
    elsewhere = (torch.nan, 1.0 if described else torch.nan)
    shape = (int(tables.max()) + 1, 16, pairs, size)
    unseen = torch.ones(shape[:2], dtype=torch.bool)
    for table, (queries, keys) in zip(tables, batch, strict=True):
        first = 0 if window is None else max(0, keys - queries - window + 1)
        for position in range(first, keys):
            unseen[table[position // 16], position % 16] = False
        table[: first // 16] = 0
    parts = [random(*shape), 2 * random(*shape, 1)[..., 0]]
    if kind is None:
        return KVCache(
            *(
                part.half().masked_fill(unseen[..., None, None], other).to(DEVICE)
                for part, other in zip(parts, elsewhere, strict=True)
            )
        )
    (key, key_scale), (value, value_scale) = (quantize(part, kind) for part in parts)
    scales = [
        scale.masked_fill(unseen[..., None], other)
        for scale, other in zip((key_scale, value_scale), elsewhere, strict=True)
    ]
    return KVCache(*(part.to(DEVICE) for part in (key, value, *scales)))


def queries_of(batch, heads, size):
    """Heads of a stacked projection, the last of them belonging to others."""
    stacked = random(sum(queries for queries, _ in batch), heads + 2, size)
    return stacked.half().to(DEVICE)[:, :heads]


def computed(q, cache, meta, spec, *, every=True, tiling=SMALL):
    out = torch.full(q.shape, 77.0, dtype=q.dtype, device=DEVICE)
    prefill_attention(q, cache, meta, spec, out, every=every, tiling=tiling)
    return out


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_caches_of_every_kind(kind, spec):
    tables = tables_of(MIXED)
    cache = cache_of(tables, MIXED, 2, 64, kind, spec.window)
    meta, q = meta_of(tables, MIXED), queries_of(MIXED, 8, 64)
    expected = attention(q, cache, meta, spec)
    assert expected.isfinite().all()
    assert_close(computed(q, cache, meta, spec), expected)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("kind", (None, torch.int8, torch.float8_e5m2), ids=str)
def test_tiles_that_are_described(kind, spec):
    tables = tables_of(MIXED)
    cache = cache_of(tables, MIXED, 2, 64, kind, spec.window, described=True)
    meta, q = meta_of(tables, MIXED), queries_of(MIXED, 8, 64)
    expected = attention(q, cache, meta, spec)
    assert expected.isfinite().all()
    assert_close(computed(q, cache, meta, spec, tiling=DESCRIBED), expected)


@pytest.mark.filterwarnings("ignore:(All-NaN slice|invalid value):RuntimeWarning")
@pytest.mark.parametrize("tiling", [SMALL, DESCRIBED], ids=["gathered", "described"])
@pytest.mark.parametrize("kind", (None, torch.int8, torch.float8_e5m2), ids=str)
def test_a_key_of_nan_is_noticed_by_whoever_sees_it(kind, tiling):
    """Of the quantised kinds, by its scale: not all of them have a NaN."""
    batch, spec = ((6, 20),), SPECS["full"]
    tables = tables_of(batch)
    cache = cache_of(tables, batch, 2, 64, kind, described=True)
    key = cache.key if kind is None else cache.key_scale
    key[int(tables[0, 1]), 0, 1] = torch.nan  # position 16, which the last four queries see
    out = computed(queries_of(batch, 8, 64), cache, meta_of(tables, batch), spec, tiling=tiling)
    assert out[2:, 4:].isnan().all()
    assert out[:2].isfinite().all()
    assert out[:, :4].isfinite().all()


@pytest.mark.parametrize(("heads", "pairs", "size"), [(4, 4, 32), (9, 3, 80), (4, 1, 256)])
@pytest.mark.parametrize("tiling", [SMALL, None], ids=["small", "usual"])
def test_heads_of_every_size(heads, pairs, size, tiling):
    tables, spec = tables_of(MIXED), SPECS["window"]
    cache = cache_of(tables, MIXED, pairs, size, None, spec.window)
    meta, q = meta_of(tables, MIXED), queries_of(MIXED, heads, size)
    assert_close(computed(q, cache, meta, spec, tiling=tiling), attention(q, cache, meta, spec))


def test_requests_with_one_query_are_left_to_others():
    tables, spec = tables_of(MIXED), SPECS["full"]
    cache, meta = cache_of(tables, MIXED, 2, 32), meta_of(tables, MIXED)
    q = queries_of(MIXED, 4, 32)
    some, every = (computed(q, cache, meta, spec, every=every) for every in (False, True))
    single = [0, 20]
    assert (some[single] == 77).all()
    others = [row for row in range(len(q)) if row not in single]
    assert torch.equal(some[others], every[others])


def matmul_by_row(a, b, dtype):
    """Numpy's own depends on where in the matrix a row stands."""
    return (a.astype(dtype)[:, :, None] * b.astype(dtype)[None]).sum(1)


@pytest.mark.parametrize(
    ("name", "kind", "heads"),
    [("full", None, 4), ("window", None, 6), ("wide", torch.int8, 4)],
)
def test_rows_are_equal_in_any_company(name, kind, heads, monkeypatch):
    if DEVICE.type == "cpu":
        monkeypatch.setattr("numpy.matmul", matmul_by_row)
    spec, batch = SPECS[name], ((70, 70), (40, 61))
    tables = tables_of(batch)
    cache, q = cache_of(tables, batch, 2, 32, kind), queries_of(batch, heads, 32)
    whole = computed(q, cache, meta_of(tables, batch), spec)
    done = 0
    for chunk in (1, 7, 16, 1, 30, 15):  # of the first request, the second being at rest
        done += chunk
        meta = meta_of(tables.flip(0), ((0, 61), (chunk, done)))
        part = computed(q[done - chunk : done], cache, meta, spec)
        assert torch.equal(part, whole[done - chunk : done]), f"queries up to {done}"
    for row in (0, 1, 39):  # each alone, then both in company of others
        meta = meta_of(tables[1:], ((1, 22 + row),))
        alone = computed(q[70 + row : 71 + row], cache, meta, spec)
        assert torch.equal(alone[0], whole[70 + row])


def test_many_requests():
    batch = tuple((1 + number % 3, 3 + number % 5) for number in range(300))
    tables = tables_of(batch)
    cache, q = cache_of(tables, batch, 1, 32), queries_of(batch, 2, 32)
    meta, spec = meta_of(tables, batch), SPECS["full"]
    assert_close(computed(q, cache, meta, spec), attention(q, cache, meta, spec))


def test_queries_in_float32():
    tables = tables_of(MIXED)
    half = cache_of(tables, MIXED, 2, 32)
    cache = replace(half, key=half.key.float(), value=half.value.float())
    meta, spec = meta_of(tables, MIXED), SPECS["full"]
    q = queries_of(MIXED, 4, 32).float()
    assert_close(computed(q, cache, meta, spec, tiling=None), attention(q, cache, meta, spec))


@pytest.mark.filterwarnings("ignore:(All-NaN slice|invalid value):RuntimeWarning")
@pytest.mark.parametrize("kind", (None, torch.int8, torch.float8_e5m2), ids=str)
def test_values_in_the_cache_are_finite(kind):
    """What is not says so in its key."""
    cache = KVCache(*(torch.zeros(1, 16, 2, 32, dtype=kind or torch.half).to(DEVICE),) * 2)
    cache = replace(cache, value=cache.value.clone())
    if kind is not None:
        scale = torch.zeros(1, 16, 2).to(DEVICE)
        cache = replace(cache, key_scale=scale, value_scale=scale.clone())
    q, k, v = (random(3, heads, 32).half().to(DEVICE) for heads in (2, 2, 2))
    v[0, 1, 5], v[2, 0, 31] = torch.inf, torch.nan
    at, table = torch.arange(3, device=DEVICE), torch.tensor([[[1.0], [0.0]]] * 3).to(DEVICE)
    rotate_and_store_on(overlapped=False)(q, k, v, at.int(), table, cache, at)
    stored = [
        part[0, :3].float() * (1 if scale is None else scale[0, :3, :, None])
        for part, scale in ((cache.key, cache.key_scale), (cache.value, cache.value_scale))
    ]
    spoilt = torch.tensor([[0, 1], [0, 0], [1, 0]], dtype=torch.bool, device=DEVICE)
    assert stored[0][spoilt].isnan().all()
    assert stored[0][~spoilt].isfinite().all()
    assert stored[1].isfinite().all()
    torch.testing.assert_close(stored[1][1], v[1].float(), rtol=0.13, atol=0.05)
