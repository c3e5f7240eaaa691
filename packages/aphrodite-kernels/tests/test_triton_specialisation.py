"""Steps of new sizes find every Triton kernel compiled: a compilation takes a second of serving.

Launches are recorded, not run: for each, what Triton compiles a kernel for. Beside constants and
options that is, of every argument that the kernel's decorator does not except, whether an integer
is 1 and whether an integer or an address is divisible by 16.
"""

from functools import cache

import pytest
import torch
from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache, stored_size
from aphrodite_kernels.backends.triton import create, device_obstacle
from aphrodite_kernels.layouts import Dense, GgmlType, Grouped, Scaled
from aphrodite_kernels.layouts.trellis import TrellisCodebook
from aphrodite_kernels.testing import random_blocks
from aphrodite_kernels.testing.kinds.codebook import random_lattice
from aphrodite_kernels.testing.kinds.runs import random_vector_runs
from aphrodite_kernels.testing.kinds.trellis import random_trellis

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction, create_function_from_signature

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTH, HEADS, KV_HEADS, SIZE, VOCABULARY = 512, 4, 2, 64, 1040
BLOCKS, BLOCK_SIZE, TABLE = 40, 16, 24

SOME, OTHERS = (16,), (1, 2, 5, 17, 32, 100, 160, 301)
"""Rows of the step that compiles, and of those that must not."""
LIMITS = (1, 2, 8, 16, 32, 64, 96, 128, 256, 512)
"""Rows of the products that compile: one for each tiling that is chosen by their number."""
BETWEEN = (3, 5, 11, 17, 33, 48, 50, 80, 91, 100, 112, 160, 301, 304)


@cache
def backend():
    return create(DEVICE, threads=None, dtype=torch.bfloat16)


@cache
def binder(kernel):
    """What gives a launch's specialisation and options, as on a device of capability 9.0."""
    if not isinstance(kernel, JITFunction):
        kernel = JITFunction(kernel.fn, **kernel.kwargs)
    target = make_backend(GPUTarget("cuda", 90, 32))
    return create_function_from_signature(kernel.signature, kernel.params, target)


@pytest.fixture
def compiled(monkeypatch):
    """What kernels have been compiled for."""
    seen = set()

    def record(self, *args, grid, warmup, **options):
        _, specialisation, rest = binder(self)(*args, **options)
        seen.add(f"{self.__name__} {specialisation} {rest}")

    for kind in (InterpretedFunction, JITFunction):
        monkeypatch.setattr(kind, "run", record)
    return seen


def check(compiled, step, warm, others):
    for count in warm:
        step(count)
    known = set(compiled)
    assert known, "no kernel was launched"
    for count in others:
        step(count)
        assert compiled == known, f"{count} rows: compiled again {sorted(compiled - known)}"


def parts_of(dtype, *lengths):
    """Zeros one behind the other, as the numbers of a step are: few begin at round addresses."""
    return torch.zeros(sum(lengths), dtype=dtype, device=DEVICE).split(list(lengths))


def zeros(*shape, dtype=torch.bfloat16):
    return torch.zeros(shape, dtype=dtype, device=DEVICE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.uint8], ids=str)
def test_rotation_and_the_cache(compiled, dtype):
    scales = () if dtype.itemsize > 1 else (zeros(BLOCKS, BLOCK_SIZE, KV_HEADS, dtype=torch.float),)
    shape = (BLOCKS, BLOCK_SIZE, KV_HEADS, stored_size(SIZE, dtype))
    cache = KVCache(*(zeros(*shape, dtype=dtype) for _ in range(2)), *scales, *scales)
    table = zeros(64, 2, SIZE // 2, dtype=torch.float)

    def step(tokens):
        stacked = zeros(tokens, (HEADS + 2 * KV_HEADS) * SIZE)
        widths = [heads * SIZE for heads in (HEADS, KV_HEADS, KV_HEADS)]
        q, k, v = (part.view(tokens, -1, SIZE) for part in stacked.split(widths, 1))
        _, positions = parts_of(torch.int32, 1, tokens)
        _, slots = parts_of(torch.int64, tokens, tokens)
        backend().rotate_and_store(q, k, v, positions, table, cache, slots)

    check(compiled, step, SOME, OTHERS)


def test_rows_between_products(compiled):
    def step(rows):
        ops = backend()
        _, tokens, index = parts_of(torch.int32, 1, rows, rows)
        x = ops.embed_for(Dense(zeros(64, WIDTH)))(tokens, Dense(zeros(64, WIDTH)), 1.0)
        norm = zeros(WIDTH, dtype=torch.float32)
        x = ops.rms_norm(x, norm, 1e-5)
        x, _ = ops.add_rms_norm(x, x, norm, 1e-5)
        ops.rms_norm(x.view(rows, -1, SIZE), norm[:SIZE], 1e-5)
        gate, up = zeros(rows, 2 * WIDTH).chunk(2, 1)
        ops.gated(gate, up, "silu")
        ops.select(x, index.long())

    check(compiled, step, SOME, OTHERS)


def test_sampling(compiled):
    def step(rows):
        ops = backend()
        logits = zeros(rows, VOCABULARY, dtype=torch.float)
        _, seeds = parts_of(torch.int64, 1, rows)
        _, choices, positions = parts_of(torch.int32, 1, rows, rows)
        for purpose in (0, 1, 16):
            uniform = ops.uniform(seeds, choices, positions, purpose)
        _, threshold = parts_of(torch.float32, 1, rows)
        ops.argmax(logits.bfloat16())
        ops.argmax(logits)
        ops.keep_top_k(logits, seeds)
        ops.keep_top_p(logits, threshold)
        for change in (ops.keep, ops.keep_near, ops.keep_up_to, ops.keep_typical):
            change(logits, threshold)
        ops.draw(logits, uniform)
        ops.logsumexp(logits)
        ops.least_from(logits, threshold)
        ops.uncertainty(logits)
        ops.deviation(logits)

    check(compiled, step, SOME, OTHERS)


def scaled(block):
    shape = [-(-WIDTH // extent) for extent in block]
    return Scaled(zeros(WIDTH, WIDTH, dtype=torch.float8_e4m3fn), torch.ones(shape), block)


def grouped():
    codes = zeros(WIDTH, WIDTH, dtype=torch.uint8)
    return Grouped.pack(codes, zeros(WIDTH, WIDTH // 128), None, 4, 128)


@pytest.mark.parametrize("mode", ["fast", "steady"])
@pytest.mark.parametrize(
    "weight",
    [
        lambda: Dense(zeros(WIDTH, WIDTH)),
        lambda: scaled((1, WIDTH)),
        lambda: scaled((128, 128)),
        lambda: random_blocks(GgmlType.Q4_K, WIDTH, WIDTH, torch.Generator().manual_seed(0)),
        lambda: random_blocks(GgmlType.Q8_0, WIDTH, WIDTH, torch.Generator().manual_seed(0)),
        grouped,
        lambda: random_trellis(WIDTH, WIDTH, 4, TrellisCodebook.MUL1, torch.Generator()),
        lambda: random_vector_runs(WIDTH, WIDTH, torch.Generator()),
        lambda: random_lattice(WIDTH, WIDTH, torch.Generator()),
    ],
    ids=["dense", "channels", "blocks", "Q4_K", "Q8_0", "grouped", "trellis", "runs", "lattice"],
)
def test_products(compiled, weight, mode):
    ops = backend() if mode == "fast" else backend().steady()
    prepared = ops.prepare(weight())
    matmul = ops.matmul_for(prepared)
    check(compiled, lambda rows: matmul(zeros(rows, WIDTH), prepared), LIMITS, BETWEEN)


@pytest.mark.parametrize("block", [(1, WIDTH), (128, 128)], ids=str)
def test_what_rounds_for_products(compiled, block):
    prepared = backend().prepare(scaled(block))
    inputs = backend().inputs_of(prepared)

    def step(rows):
        norm = zeros(WIDTH, dtype=torch.float32)
        inputs.add_rms_norm(zeros(rows, WIDTH), zeros(rows, WIDTH), norm, 1e-5)
        gate, up = zeros(rows, 2 * WIDTH).chunk(2, 1)
        inputs.gated(gate, up, "silu")

    check(compiled, step, (1, 65), (3, 64, 66, 80, 256, 301))


def test_rows_of_quantised_embeddings(compiled):
    blocks = random_blocks(GgmlType.Q8_0, WIDTH, WIDTH, torch.Generator().manual_seed(0))
    weight = backend().prepare(blocks)
    embed = backend().embed_for(weight)
    check(
        compiled, lambda rows: embed(parts_of(torch.int32, 1, rows)[1], weight, 1.0), SOME, OTHERS
    )


@pytest.mark.parametrize("queries", [1, 7])
@pytest.mark.parametrize("mode", ["fast", "steady"])
def test_attention(compiled, queries, mode):
    ops = backend() if mode == "fast" else backend().steady()
    cache = KVCache(*(zeros(BLOCKS, BLOCK_SIZE, KV_HEADS, SIZE) for _ in range(2)))

    def step(requests):
        tokens = requests * queries
        _, tables, seq_lens, starts = parts_of(
            torch.int32, 1, requests * TABLE, requests, requests + 1
        )
        meta = AttentionMeta(
            block_tables=tables.view(requests, TABLE),
            seq_lens=seq_lens,
            query_starts=starts,
            slots=zeros(tokens, dtype=torch.int64),
            max_query=queries,
            max_seq=TABLE * BLOCK_SIZE,
        )
        q = zeros(tokens, HEADS, SIZE)
        ops.attention(q, cache, meta, AttentionSpec(scale=1.0))
        ops.attention(q, cache, meta, AttentionSpec(scale=1.0, window=32))
        ops.attention(q, cache, meta, AttentionSpec(scale=1.0, window=33))

    # Decoding has a kernel for up to 32 requests, up to 256, and each power of two beyond, and
    # another for a crowd of them, where processors have no room for a launch ahead of its turn; the
    # deterministic one has two, for few and for many requests.
    known = (1, 16, 48, 160, 400) if queries == 1 else SOME
    check(compiled, step, known, OTHERS)
