"""Attention on CUDA devices: shares of unequal contexts, padding, and rows that round alike."""

import dataclasses

import pytest
import torch
from aphrodite_kernels import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends import triton as backend
from aphrodite_kernels.backends.reference.attention import attention as expected

if backend.obstacle() is not None:
    pytest.skip(f"no Triton here: {backend.obstacle()}", allow_module_level=True)

from aphrodite_kernels.backends.triton import attention_decode, attention_meeting, attention_steady
from aphrodite_kernels.backends.triton.attention import attention_on, steady_attention_on
from aphrodite_kernels.backends.triton.attention_walks import Walk

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BLOCK_SIZE = 16
SPECS = {
    "full": AttentionSpec(0.125),
    "window": AttentionSpec(0.125, window=70),
    "sinks": AttentionSpec(0.125, sinks=torch.arange(-3.0, 3.0, device=DEVICE)),
}
WALKS = {
    "plain": Walk(tile=16, num_warps=4, num_stages=3, resident=2, least=1),
    "folded": Walk(tile=16, num_warps=1, num_stages=1, resident=2, least=1, folded=True),
}


class Stream:
    """One request: its queries at every position, and blocks that hold its keys."""

    def __init__(self, length: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        blocks = -(-length // BLOCK_SIZE) + 1
        shape = (blocks, BLOCK_SIZE, 2, 16)
        self.q = torch.randn(length, 6, 16, generator=generator).half().to(DEVICE)
        self.key, self.value = (
            torch.randn(shape, generator=generator).half().to(DEVICE) for _ in range(2)
        )


def step_of(*parts: tuple[Stream, int, int]) -> tuple[torch.Tensor, KVCache, AttentionMeta]:
    """Queries [first, last) of each stream."""
    caches = [(stream.key, stream.value) for stream, _, _ in parts]
    most = max(len(key) for key, _ in caches)
    tables = torch.zeros(len(parts), most, dtype=torch.int32)
    begin = 0
    for table, (key, _) in zip(tables, caches, strict=True):
        table[: len(key)] = torch.arange(begin, begin + len(key))
        begin += len(key)
    counts = torch.tensor([0, *(last - first for _, first, last in parts)])
    meta = AttentionMeta(
        block_tables=tables.to(DEVICE),
        seq_lens=torch.tensor([last for *_, last in parts], dtype=torch.int32, device=DEVICE),
        query_starts=counts.cumsum(0).int().to(DEVICE),
        slots=torch.zeros(int(counts.sum()), dtype=torch.int64, device=DEVICE),
        max_query=int(counts.max()),
        max_seq=max(last for *_, last in parts),
    )
    key, value = (torch.cat(each) for each in zip(*caches, strict=True))
    return (
        torch.cat([stream.q[first:last] for stream, first, last in parts]),
        KVCache(key, value),
        meta,
    )


@pytest.mark.pairwise
@pytest.mark.parametrize("walk", WALKS.values(), ids=WALKS)
@pytest.mark.parametrize("processors", [1, 40])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_shares_cut_contexts_anywhere(spec, processors, walk):
    """Requests lie in one share or in many, a share holds a part of one request or several."""
    meeting = dataclasses.replace(attention_meeting.meeting_on(DEVICE), processors=processors)
    lengths = (300, 1, 64, 65, 3, 129)
    parts = [(Stream(n, seed=n), n - 1, n) for n in lengths]
    q, cache, meta = step_of(*parts)
    out = torch.full_like(q, torch.nan)
    for _ in range(2):  # the meeting place is as it was found
        attention_decode.decode_attention(q, cache, meta, spec, out, meeting, walk)
        torch.testing.assert_close(out, expected(q, cache, meta, spec), rtol=4e-3, atol=4e-3)
        out.fill_(torch.nan)


def test_a_step_made_for_longer_contexts_computes_the_same():
    """As a captured one is: its lengths are known on the device alone, some rows are nobody's."""
    q, cache, meta = step_of((Stream(200), 199, 200), (Stream(40, seed=1), 0, 1))
    meta.block_tables[1] = 0
    longest = dataclasses.replace(meta, max_seq=100_000)
    out = attention_on(DEVICE, overlapped=False)(q, cache, longest, SPECS["full"])
    right = expected(q, cache, meta, SPECS["full"])
    torch.testing.assert_close(out, right, rtol=4e-3, atol=4e-3)
    steady = steady_attention_on(overlapped=False)(q, cache, longest, SPECS["full"])
    torch.testing.assert_close(steady, right, rtol=4e-3, atol=4e-3)


def test_requests_with_one_query_and_with_several_share_a_step():
    parts = [(Stream(90), 89, 90), (Stream(50, seed=1), 20, 50), (Stream(30, seed=2), 29, 30)]
    q, cache, meta = step_of(*parts)
    out = attention_on(DEVICE, overlapped=False)(q, cache, meta, SPECS["full"])
    right = expected(q, cache, meta, SPECS["full"])
    torch.testing.assert_close(out, right, rtol=4e-3, atol=4e-3)


def matmul_by_row(a, b, dtype):
    """Numpy's own depends on where in the matrix a row stands."""
    return (a.astype(dtype)[:, :, None] * b.astype(dtype)[None]).sum(1)


@pytest.mark.parametrize("spec", ["window", "sinks"])
def test_chunking_and_company_change_no_bit(spec, monkeypatch):
    """Whole, in chunks, or token by token, alone or with others: across lengths of shares."""
    monkeypatch.setattr(attention_steady, "_SHARE", 32)
    monkeypatch.setattr(attention_steady, "_PARTS", 2)
    monkeypatch.setattr(attention_steady, "_TILE", 32)
    if DEVICE.type == "cpu":
        monkeypatch.setattr("numpy.matmul", matmul_by_row)
    attention, spec = steady_attention_on(overlapped=False), SPECS[spec]
    stream, other = Stream(136), Stream(90, seed=1)
    whole = attention(*step_of((stream, 0, 136)), spec)
    right = expected(*step_of((stream, 0, 136)), spec)
    torch.testing.assert_close(whole, right, rtol=4e-3, atol=4e-3)
    for first, last in ((0, 7), (7, 99), (99, 136)):
        parts = ((other, 20, 21), (stream, first, last), (other, 3, 9))
        assert torch.equal(attention(*step_of(*parts), spec)[1:-6], whole[first:last])
    for position in (0, 63, 64, 128, 135):
        alone = (stream, position, position + 1)
        assert torch.equal(attention(*step_of(alone), spec)[0], whole[position])
        crowd = ((other, 89, 90), alone, (other, 9, 10))
        assert torch.equal(attention(*step_of(*crowd), spec)[1], whole[position])
        with monkeypatch.context() as many:
            many.setattr(attention_steady, "_ENOUGH", 0)
            assert torch.equal(attention(*step_of(*crowd), spec)[1], whole[position])
