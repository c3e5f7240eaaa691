"""Recorded programs of the CPU backend: a replay is what the ops would have computed."""

import gc

import pytest
import torch
from aphrodite_kernels import (
    AttentionMeta,
    AttentionSpec,
    CaptureError,
    Dense,
    GgmlType,
    KernelError,
    KVCache,
    ShapeError,
)
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.testing import random_blocks

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)

TOKENS, REQUESTS, OUTPUTS = 24, 5, 3
HEADS, KV_HEADS, SIZE, WIDTH = 4, 2, 16, 64
SPEC = AttentionSpec(0.25, window=20)


@pytest.fixture(scope="module")
def backend():
    return cpu.backend_on(torch.device("cpu"), cpu.Runtime(2))


class Model:
    """One layer with every op, over fixed buffers."""

    def __init__(self, backend):
        generator = torch.Generator().manual_seed(0)
        normal = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
        self.backend = backend
        self.table = Dense(normal(50, WIDTH))
        self.qkv = backend.prepare(
            random_blocks(GgmlType.Q8_0, (HEADS + 2 * KV_HEADS) * SIZE, WIDTH, generator)
        )
        self.odd = Unknown(normal(2 * WIDTH, WIDTH) / 8)  # a layout without a kernel
        self.norm = 1 + normal(WIDTH) / 8
        angles = normal(64, SIZE // 2)
        self.angles = torch.stack((angles.cos(), angles.sin()), 1)
        self.cache = KVCache(normal(20, 4, KV_HEADS, SIZE), normal(20, 4, KV_HEADS, SIZE))
        self.tokens = torch.zeros(TOKENS, dtype=torch.int32)
        self.positions = torch.zeros(TOKENS, dtype=torch.int32)
        self.index = torch.zeros(OUTPUTS, dtype=torch.int64)
        self.meta = AttentionMeta(
            block_tables=torch.zeros(REQUESTS, 8, dtype=torch.int32),
            seq_lens=torch.zeros(REQUESTS, dtype=torch.int32),
            query_starts=torch.zeros(REQUESTS + 1, dtype=torch.int32),
            slots=torch.zeros(TOKENS, dtype=torch.int64),
            max_query=0,
            max_seq=0,
        )

    def step(self, tokens, requests, outputs):
        """The layer on the first rows of the buffers."""
        ops, meta = self.backend, self.meta
        x = ops.embed_for(self.table)(self.tokens[:tokens], self.table, 2.0)
        normed = ops.rms_norm(x, self.norm, 1e-6)
        stacked = ops.matmul_for(self.qkv)(normed, self.qkv)
        q, k, v = torch.split(stacked, [HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE], 1)
        q, k, v = (part.view(tokens, -1, SIZE) for part in (q, k, v))
        positions, slots = self.positions[:tokens], meta.slots[:tokens]
        ops.rotate_and_store(q, k, v, positions, self.angles, self.cache, slots)
        first = AttentionMeta(
            block_tables=meta.block_tables[:requests],
            seq_lens=meta.seq_lens[:requests],
            query_starts=meta.query_starts[: requests + 1],
            slots=meta.slots[:tokens],
            max_query=0,
            max_seq=0,
        )
        attended = ops.attention(q, self.cache, first, SPEC).view(tokens, WIDTH)
        normed, x = ops.add_rms_norm(attended, x, self.norm, 1e-6)
        wide = ops.matmul_for(self.odd)(normed, self.odd)
        x = ops.gated(wide[:, :WIDTH], wide[:, WIDTH:], "silu")
        return ops.select(x, self.index[:outputs])

    def fill(self, lengths, outputs, generator):
        """Requests with (queries, keys), each in blocks of its own."""
        tokens = 0
        for request, (queries, keys) in enumerate(lengths):
            blocks = 1 + request * 3 + torch.arange(-(-keys // 4))
            self.meta.block_tables[request, : len(blocks)] = blocks
            self.meta.seq_lens[request] = keys
            self.meta.query_starts[request + 1] = tokens + queries
            rows, seen = slice(tokens, tokens + queries), torch.arange(keys - queries, keys)
            self.positions[rows] = seen
            self.meta.slots[rows] = blocks[seen // 4] * 4 + seen % 4
            tokens += queries
        self.tokens.copy_(torch.randint(50, (TOKENS,), generator=generator))
        self.index[:outputs] = torch.randint(tokens, (outputs,), generator=generator)
        return tokens


class Unknown(Dense):
    """A layout that the backend has never heard of."""


def test_replay_equals_eager_for_any_counts(backend):
    """The full buffers, one request, none to answer; an op without a kernel in the middle."""
    model, generator = Model(backend), torch.Generator().manual_seed(1)
    program, result = backend.capture(
        lambda: model.step(TOKENS, REQUESTS, OUTPUTS), TOKENS, REQUESTS, OUTPUTS
    )
    for lengths, outputs in (
        ([(1, 1)], 1),
        ([(3, 9), (1, 12), (5, 5)], 3),
        ([(2, 2), (1, 3)], 0),
        ([(4, 8), (4, 4), (4, 9), (6, 6), (6, 12)], 2),
        ([(1, 12)], 1),
    ):
        tokens = model.fill(lengths, outputs, generator)
        expected = model.step(tokens, len(lengths), outputs)
        program.replay(tokens, len(lengths), outputs)
        assert torch.equal(result[:outputs], expected)


def test_memory_is_reused_between_layers(backend):
    x, weight = torch.randn(64, 96), torch.ones(96)

    def deep(layers):
        def run():
            y = x
            for _ in range(layers):
                y = backend.rms_norm(y, weight, 1e-6)
                y = backend.gated(y, backend.gated(y, x, "silu"), "silu")
            return y

        return run

    sizes = {backend.capture(deep(layers), 64, 3, 2)[0].nbytes for layers in (3, 30)}
    assert len(sizes) == 1
    assert sizes.pop() <= 4 * x.nbytes


def test_a_program_outlives_everything_else(backend):
    """Its result and its inputs are its own to keep."""

    def make():
        x, weight = torch.randn(32, 64), torch.ones(64)
        program, result = backend.capture(lambda: backend.rms_norm(x, weight, 1e-6), 32, 3, 2)
        return program, result, backend.rms_norm(x, weight, 1e-6)

    program, result, expected = make()
    gc.collect()
    result.zero_()
    junk = [torch.randn(32, 64) for _ in range(50)]
    program.replay(32, 3, 2)
    assert torch.equal(result, expected)
    assert len(junk) == 50


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x + 1,
        lambda x: x.mul_(2.0),
        lambda x: x[x.argmax(0)],
        lambda x: x.T.reshape(8, 64),
        lambda x: torch.cat((x, x)),
        lambda x: x if x[0, 0] else x.T.T,
        lambda x: x.__setitem__(0, 1.0),
        lambda x: torch.add(x, x, out=x),
        lambda x: x.__imul__(2),
        lambda x: x[: int(x[0, 0].item()) + 8],
        lambda x: torch.zeros(8, 64),
    ],
    ids=[
        "add",
        "in place",
        "index",
        "copy",
        "cat",
        "branch",
        "set",
        "out",
        "operator",
        "item",
        "zeros",
    ],
)
@pytest.mark.parametrize("inference", [False, True])
def test_arithmetic_of_torch_is_refused(backend, compute, inference):
    x, weight = torch.zeros(8, 64), torch.ones(64)
    with (
        torch.inference_mode(inference),
        pytest.raises(CaptureError, match=r"torch computes \S+ inside a captured function"),
    ):
        backend.capture(lambda: backend.rms_norm(compute(x), weight, 1e-6), 8, 3, 2)


def test_views_are_welcome(backend):
    x, weight = torch.randn(8, 64), torch.ones(16)

    def views():
        first, second = torch.split(x.view(8, 2, 32), [1, 1], 1)
        part = first.squeeze(1)[:, 8:24].unsqueeze(1).expand(8, 1, 16).flatten(1)
        assert part.shape == (8, 16) and second.stride(0) == 64
        return backend.rms_norm(part, weight, 1e-6)

    with torch.inference_mode():
        program, result = backend.capture(views, 8, 3, 2)
    program.replay(8, 3, 2)
    assert torch.equal(result, backend.rms_norm(x[:, 8:24], weight, 1e-6))


def test_what_cannot_be_replayed_is_refused(backend):
    x, weight = torch.randn(8, 64), torch.ones(64)
    with pytest.raises(CaptureError, match=r"rms_norm runs over 5 rows, .* 8 tokens"):
        backend.capture(lambda: backend.rms_norm(x[:5], weight, 1e-6), 8, 3, 2)
    with pytest.raises(CaptureError, match=r"different and positive: \(8, 8, 2\)"):
        backend.capture(lambda: x, 8, 8, 2)
    with pytest.raises(CaptureError, match="inside another capture"):
        backend.capture(lambda: backend.capture(lambda: x, 8, 3, 2)[1], 8, 3, 2)
    assert torch.equal(backend.rms_norm(x + 0, weight, 1e-6), backend.rms_norm(x, weight, 1e-6))


def test_counts_beyond_the_buffers_are_refused(backend):
    x, weight = torch.randn(8, 64), torch.ones(64)
    program, _ = backend.capture(lambda: backend.rms_norm(x, weight, 1e-6), 8, 3, 2)
    with pytest.raises(ShapeError, match=r"up to \(8, 3, 2\) cannot run over \(9, 1, 1\)"):
        program.replay(9, 1, 1)


def test_an_error_in_a_replay_names_the_op(backend):
    x, index = torch.randn(8, 64), torch.zeros(2, dtype=torch.int64)
    program, _ = backend.capture(lambda: backend.select(x, index), 8, 3, 2)
    index[1] = 8
    with pytest.raises(KernelError, match="select: row 8 of 8 does not exist"):
        program.replay(8, 3, 2)
    program.replay(8, 3, 1)
