"""Compiled attention against float64, and the promise that company never changes a result."""

from itertools import pairwise

import pytest
import torch
from aphrodite_kernels import AttentionMeta, AttentionSpec, KernelError, KVCache, ShapeError
from aphrodite_kernels.backends import cpu

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)


@pytest.fixture(scope="module", params=[1, 2, 3], ids="threads{}".format)
def attention(request):
    return cpu.backend_on(torch.device("cpu"), cpu.Runtime(request.param)).attention


class Stream:
    """One request: its queries, keys and values at every position."""

    def __init__(self, length, heads, kv_heads, size, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.q = torch.randn(length, heads, size, generator=generator)
        self.k = torch.randn(length, kv_heads, size, generator=generator)
        self.v = torch.randn(length, kv_heads, size, generator=generator)

    def expected(self, first, last, spec):
        """Float64 attention of the queries [first, last)."""
        group = self.q.shape[1] // self.k.shape[1]
        k, v = (part.double().repeat_interleave(group, 1) for part in (self.k, self.v))
        rows = []
        for position in range(first, last):
            low = 0 if spec.window is None else max(0, position - spec.window + 1)
            seen = slice(low, position + 1)
            scores = torch.einsum("hd,shd->hs", self.q[position].double(), k[seen]) * spec.scale
            if spec.softcap is not None:
                scores = spec.softcap * torch.tanh(scores / spec.softcap)
            rows.append(torch.einsum("hs,shd->hd", scores.softmax(-1), v[seen]))
        return torch.stack(rows)


def batch_of(parts, block_size=16, dtype=torch.float32, window=None, seed=0):
    """Queries, cache and meta of a step in which each (stream, first, last) takes part.

    Blocks lie in random order; whatever no query may look at is NaN, and block 0 where the window
    has left a block behind.
    """
    needed = [-(-last // block_size) for _, _, last in parts]
    order = torch.randperm(sum(needed), generator=torch.Generator().manual_seed(seed)).int() + 1
    tables = torch.zeros(len(parts), max(needed) + 2, dtype=torch.int32)
    shape = (sum(needed) + 1, block_size, *parts[0][0].k.shape[1:])
    cache = KVCache(*(torch.full(shape, torch.nan, dtype=dtype) for _ in range(2)))
    for (stream, first, last), table, owned in zip(
        parts, tables, torch.split(order, needed), strict=True
    ):
        low = 0 if window is None else max(0, first - window + 1)
        table[: len(owned)] = owned
        positions = torch.arange(low, last)
        blocks = table.long()[positions // block_size]
        cache.key[blocks, positions % block_size] = stream.k[low:last].to(dtype)
        cache.value[blocks, positions % block_size] = stream.v[low:last].to(dtype)
        table[: low // block_size] = 0
    starts = torch.tensor([0, *(last - first for _, first, last in parts)]).cumsum(0).int()
    meta = AttentionMeta(
        block_tables=tables,
        seq_lens=torch.tensor([last for _, _, last in parts], dtype=torch.int32),
        query_starts=starts,
        slots=torch.zeros(int(starts[-1]), dtype=torch.int64),
        max_query=0,
        max_seq=0,
    )
    return torch.cat([stream.q[first:last] for stream, first, last in parts]), cache, meta


SPECS = {
    "full": AttentionSpec(0.125),
    "window": AttentionSpec(0.125, window=70),
    "softcap": AttentionSpec(0.3, softcap=5.0),
    "window-softcap": AttentionSpec(0.3, window=3, softcap=2.0),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("heads", [(9, 3, 64), (4, 1, 256), (5, 5, 20), (96, 1, 16)], ids=str)
def test_a_mixed_batch_is_right(attention, heads, spec):
    """Prefill, a chunk of a prefill and decodes, across chunks and blocks, next to NaN."""
    streams = [Stream(200, *heads, seed=seed) for seed in range(4)]
    parts = [
        (streams[0], 0, 70),
        (streams[1], 127, 200),
        (streams[2], 129, 130),
        (streams[3], 0, 1),
    ]
    q, cache, meta = batch_of(parts, window=spec.window)
    result = attention(q, cache, meta, spec)
    expected = torch.cat([stream.expected(first, last, spec) for stream, first, last in parts])
    torch.testing.assert_close(result.double(), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("block_size", [1, 16, 48])
def test_narrow_caches_and_any_block_size(attention, dtype, limit, block_size):
    stream, spec = Stream(150, 8, 2, 80), AttentionSpec(80**-0.5)
    q, cache, meta = batch_of([(stream, 100, 150)], block_size, dtype)
    expected = stream.expected(100, 150, spec)
    result = attention(q, cache, meta, spec).double()
    torch.testing.assert_close(result, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(
    "cuts", [(0, 1, 2, 300), (0, 63, 64, 65, 300), (0, 150, 299, 300)], ids=str
)
@pytest.mark.parametrize("level", ["generic", "avx2", None])
def test_chunking_and_company_change_no_bit(spec, cuts, level):
    """However its prompt is cut, whoever shares the batch, and however many threads there are."""
    stream, other = Stream(300, 9, 3, 64), Stream(700, 9, 3, 64, seed=1)
    alone = cpu.backend_on(torch.device("cpu"), cpu.Runtime(1, level)).attention
    shared = cpu.backend_on(torch.device("cpu"), cpu.Runtime(3, level)).attention
    q, cache, meta = batch_of([(stream, 0, 300)], window=spec.window)
    whole = alone(q, cache, meta, spec)
    for first, last in pairwise(cuts):
        parts = [(other, 690, 700), (stream, first, last), (other, 20, 21)]
        q, cache, meta = batch_of(parts, 32, window=spec.window, seed=first)
        result = shared(q, cache, meta, spec)[10 : 10 + last - first]
        assert torch.equal(result, whole[first:last])


def test_decode_equals_prefill_bit_for_bit(attention):
    stream, spec = Stream(260, 4, 2, 32), AttentionSpec(0.2, window=100)
    q, cache, meta = batch_of([(stream, 0, 260)], window=100)
    whole = attention(q, cache, meta, spec)
    for position in (0, 1, 63, 64, 99, 100, 128, 163, 164, 259):
        q, cache, meta = batch_of([(stream, position, position + 1)], window=100)
        assert torch.equal(attention(q, cache, meta, spec), whole[position : position + 1])


def test_a_long_decode_is_split_without_changing_a_bit():
    stream, spec = Stream(3000, 2, 1, 64), AttentionSpec(0.125)
    q, cache, meta = batch_of([(stream, 2999, 3000)])
    one, four = (
        cpu.backend_on(torch.device("cpu"), cpu.Runtime(threads)).attention(q, cache, meta, spec)
        for threads in (1, 4)
    )
    assert torch.equal(one, four)
    torch.testing.assert_close(
        one.double(), stream.expected(2999, 3000, spec), rtol=2e-5, atol=2e-5
    )


def test_large_scores_do_not_overflow(attention):
    stream, spec = Stream(130, 2, 2, 32), AttentionSpec(50.0)
    q, cache, meta = batch_of([(stream, 0, 130)])
    expected = stream.expected(0, 130, spec)
    result = attention(q, cache, meta, spec).double()
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)


def test_rows_of_no_request_are_zero(attention):
    stream = Stream(5, 2, 1, 16)
    q, cache, meta = batch_of([(stream, 0, 5)])
    result = attention(torch.cat((q, q)), cache, meta, AttentionSpec(1.0))
    assert result[:5].isfinite().all()
    assert torch.equal(result[5:], torch.zeros(5, 2, 16))


def test_bad_metadata_is_an_error(attention):
    stream, spec = Stream(40, 2, 1, 16), AttentionSpec(1.0)
    q, cache, meta = batch_of([(stream, 0, 40)])
    with pytest.raises(KernelError, match="request 0 has the rows 0 to 40 of 30"):
        attention(q[:30], cache, meta, spec)
    meta.seq_lens[0] = 1000
    with pytest.raises(KernelError, match="1000 keys for 40 queries and room for 80"):
        attention(q, cache, meta, spec)


def test_tensors_that_do_not_fit_are_errors(attention):
    stream, spec = Stream(4, 3, 1, 16), AttentionSpec(1.0)
    q, cache, meta = batch_of([(stream, 0, 4)])
    with pytest.raises(ShapeError, match=r"q must be \[any, any, any\] torch.float32"):
        attention(q.double(), cache, meta, spec)
    with pytest.raises(ShapeError, match=r"key cache must be \[any, any, any, 8\]"):
        attention(q[..., :8], cache, meta, spec)
    with pytest.raises(ShapeError, match=r"KV cache must be of torch.float32"):
        attention(q, KVCache(cache.key.double(), cache.value.double()), meta, spec)
    wide = KVCache(cache.key.repeat(1, 1, 2, 1), cache.value.repeat(1, 1, 2, 1))
    with pytest.raises(ShapeError, match="3 heads do not share 2 KV heads"):
        attention(q, wide, meta, spec)
