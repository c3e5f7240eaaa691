"""Quantised KV caches on every instruction set, against torch's own conversions."""

import pytest
import torch
from aphrodite_kernels import AttentionMeta, AttentionSpec, KVCache, ShapeError
from aphrodite_kernels.attention import stored_size
from aphrodite_kernels.backends import cpu, reference
from aphrodite_kernels.backends.cpu.library import LEVELS
from aphrodite_kernels.backends.reference import QUANTIZED
from aphrodite_kernels.backends.reference.attention import gather_kv, quantize

CPU = torch.device("cpu")
FLOATS = [torch.float8_e4m3fn, torch.float8_e5m2]
needs_library = pytest.mark.skipif(cpu.obstacle() is not None, reason=str(cpu.obstacle()))


def made(level):
    if level == "reference":
        return reference.create(CPU, threads=None, dtype=None)
    return cpu.backend_on(CPU, cpu.Runtime(2, level))


EVERYWHERE = ["reference", *(pytest.param(level, marks=needs_library) for level in LEVELS[:3])]


def cache_of(vectors, size, dtype, **fixed):
    """Room for so many vectors, one to a block, with one head."""
    stored = [torch.zeros(vectors, 1, 1, stored_size(size, dtype), dtype=dtype) for _ in range(2)]
    return KVCache(*stored, *(torch.zeros(vectors, 1, 1) for _ in range(2)), **fixed)


def store(backend, vectors, dtype, **fixed):
    """The cache after these vectors [T, D] are stored as keys and, times 3, as values."""
    cache = cache_of(*vectors.shape, dtype, **fixed)
    k, slots = vectors[:, None].contiguous(), torch.arange(len(vectors))
    table = torch.zeros(1, 2, 0)
    backend.rotate_and_store(k.clone(), k.clone(), 3 * k, slots.int() * 0, table, cache, slots)
    return cache


def read(backend, cache, size):
    """The values of a cache [T, D]: what a query sees whose only key is that of its block."""
    count = len(cache.key)
    meta = AttentionMeta(
        block_tables=torch.arange(count, dtype=torch.int32)[:, None],
        seq_lens=torch.ones(count, dtype=torch.int32),
        query_starts=torch.arange(count + 1, dtype=torch.int32),
        slots=torch.arange(count),
        max_query=1,
        max_seq=1,
    )
    return backend.attention(torch.zeros(count, 1, size), cache, meta, AttentionSpec(1.0))[:, 0]


def hard(size):
    """Vectors of every order of magnitude, of zeros, and with a largest number of either sign."""
    generator = torch.Generator().manual_seed(5)
    vectors = torch.randn(40, size, generator=generator) * torch.logspace(-30, 30, 40)[:, None]
    ties = torch.tensor([2.0, -2.0, 0.5, -0.5]).repeat(size // 4)
    return torch.cat((vectors, torch.zeros(1, size), ties[None], -vectors[20:22].abs()))


@pytest.mark.parametrize("level", EVERYWHERE)
@pytest.mark.parametrize("dtype", FLOATS)
def test_every_float_of_eight_bits_is_read_as_torch_reads_it(level, dtype):
    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    expected = codes.float() * 0.75
    cache = cache_of(1, 256, dtype)
    cache.value.view(-1)[:] = codes
    cache.key_scale.fill_(1.0)
    cache.value_scale.fill_(0.75)
    found = read(made(level), cache, 256)[0]
    assert torch.equal(found.nan_to_num(7.25, 1e9, -1e9), expected.nan_to_num(7.25, 1e9, -1e9))


@pytest.mark.parametrize("level", EVERYWHERE)
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_of_eight_bits_are_rounded_as_torch_rounds_them(level, dtype):
    """All of them, all halves between two, and next to those; with the scale 1."""
    numbers = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    finite = numbers[numbers.isfinite()].sort().values
    between = (finite[1:] + finite[:-1]) / 2
    near = torch.cat((finite, between, between * (1 + 2**-20), between * (1 - 2**-20)))
    near = near[: len(near) // 80 * 80].view(-1, 80)
    cache = store(made(level), near, dtype, key_fixed=1.0, value_fixed=3.0)
    assert torch.equal(cache.key.view(near.shape).float(), near.to(dtype).float())
    assert torch.equal(
        cache.value.view(torch.uint8),
        (3 * near / 3).to(dtype).view(torch.uint8).view(cache.value.shape),
    )


@pytest.mark.parametrize("level", EVERYWHERE)
@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("size", [16, 20, 64, 80])
def test_the_largest_number_of_a_vector_survives_and_all_are_near(level, dtype, size):
    """Within half a step: of the largest over 127 or 8, or of the number itself for floats."""
    vectors = hard(size)
    backend = made(level)
    found = read(backend, store(backend, vectors, dtype), size).double()
    exact = 3 * vectors.double()
    peak = exact.abs().amax(1, keepdim=True)
    steps = {torch.int8: peak / 254, torch.uint8: peak / 8}
    relative = {torch.float8_e4m3fn: 2**-4, torch.float8_e5m2: 2**-3}
    allowed = steps.get(dtype, exact.abs() * relative.get(dtype, 0.0) + peak * 2**-9 / 448)
    assert ((found - exact).abs() <= allowed * (1 + 1e-5)).all()
    largest = exact.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(
        found.gather(1, largest), exact.gather(1, largest), rtol=1e-6, atol=0
    )


@needs_library
@pytest.mark.parametrize("level", LEVELS[:3])
@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("fixed", [{}, {"key_fixed": 0.01, "value_fixed": 0.25}])
def test_compiled_code_stores_the_bits_of_the_reference(level, dtype, fixed):
    found, expected = (store(made(each), hard(20), dtype, **fixed) for each in (level, "reference"))
    for name in ("value",) if dtype == torch.uint8 else ("key", "value"):  # keys are mixed first
        codes = [getattr(each, name).view(torch.uint8) for each in (found, expected)]
        assert torch.equal(*codes)
        scales = [getattr(each, f"{name}_scale") for each in (found, expected)]
        assert torch.equal(*scales)


@pytest.mark.parametrize("level", EVERYWHERE)
@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_a_vector_that_is_not_finite_is_not_a_number(level, dtype, wrong):
    vectors = torch.randn(3, 32)
    vectors[1, 7] = wrong
    backend = made(level)
    found = read(backend, store(backend, vectors, dtype), 32)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


@pytest.mark.parametrize("level", EVERYWHERE)
def test_numbers_beyond_a_fixed_scale_saturate(level):
    vectors = torch.tensor([[1000.0, -1000.0, 100.0, 0.0]]).repeat(1, 4)
    cache = store(made(level), vectors, torch.float8_e4m3fn, key_fixed=0.5, value_fixed=2.0)
    keys = gather_kv(cache.key, cache.key_scale, (torch.tensor([0]), torch.tensor([0])), 16)
    assert keys[0, 0, :4].tolist() == [224.0, -224.0, 96.0, 0.0]
    assert cache.key_scale.item() == 0.5 and cache.value_scale.item() == 2.0


def test_two_numbers_of_four_bits_share_a_byte():
    """-8 is the largest number, whatever its sign; the first of two is the lower half."""
    codes, scale = quantize(torch.tensor([-4.0, 1.0, 0.5, 0.0, 3.6]), torch.uint8)
    assert scale.item() == 0.5
    assert codes.tolist() == [0 | 10 << 4, 9 | 8 << 4, 15 | 8 << 4]
    codes, scale = quantize(torch.tensor([4.0, 1.0]), torch.uint8)
    assert scale.item() == -0.5
    assert codes.tolist() == [0 | 6 << 4]


@needs_library
def test_a_quantised_cache_without_scales_is_refused():
    cache = KVCache(*(torch.zeros(2, 1, 1, 16, dtype=torch.int8) for _ in range(2)))
    with pytest.raises(ShapeError, match=r"a KV cache of torch.int8 needs scales"):
        read(made("generic"), cache, 16)


@pytest.mark.parametrize("level", EVERYWHERE)
@pytest.mark.parametrize("size", [64, 80])
def test_a_few_large_numbers_do_not_drown_keys_of_four_bits(level, size):
    generator = torch.Generator().manual_seed(1)
    keys, queries = torch.randn(2, 50, size, generator=generator)
    keys[:, 5] += 20
    queries[:, 5] *= 0.05
    cache, mixed = cache_of(50, size, torch.uint8), queries[:, None].clone()
    slots, table = torch.arange(50), torch.zeros(1, 2, 0)
    made(level).rotate_and_store(
        mixed, keys[:, None].clone(), keys[:, None], slots.int() * 0, table, cache, slots
    )
    found = gather_kv(cache.key, cache.key_scale, (slots, slots * 0), size)[:, 0]
    codes, scale = quantize(keys, torch.uint8)
    plain = (torch.stack((codes & 15, codes >> 4), -1).flatten(1).float() - 8) * scale[:, None]
    exact = queries @ keys.T
    torch.testing.assert_close(mixed[:, 0].norm(dim=1), queries.norm(dim=1))
    assert (mixed[:, 0] @ found.T - exact).norm() < 0.5 * (queries @ plain.T - exact).norm()
