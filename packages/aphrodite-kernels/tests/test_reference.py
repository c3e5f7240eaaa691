"""The reference against implementations that are not ours: torch's own, and published vectors."""

import pytest
import torch
from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.reference.sampling import philox
from aphrodite_kernels.layouts import Dense
from torch.nn import functional


@pytest.fixture
def ops():
    return reference.create(torch.device("cpu"), threads=None, dtype=None)


def test_rms_norm_is_that_of_torch(ops):
    x, weight = torch.randn(7, 3, 64), torch.randn(64)
    torch.testing.assert_close(
        ops.rms_norm(x, weight, 1e-5), functional.rms_norm(x, (64,), weight, 1e-5)
    )


def test_rotation_is_a_complex_product(ops):
    q, k, v = torch.randn(5, 4, 32), torch.randn(5, 2, 32), torch.randn(5, 2, 32)
    cache = cache_with(torch.zeros(0, 2, 32), torch.zeros(0, 2, 32))
    angles = torch.rand(20, 16) * 6
    table = torch.stack((angles.cos(), angles.sin()), 1)
    positions = torch.tensor([3, 19, 0, 7, 7], dtype=torch.int32)
    turn = torch.polar(torch.ones(5, 1, 16), angles[positions.long()].unsqueeze(1))
    expected = [torch.complex(x[..., :16], x[..., 16:]) * turn for x in (q, k)]
    slots = torch.tensor([9, 4, 17, 5, 6])
    ops.rotate_and_store(q, k, v, positions, table, cache, slots)
    stored = cache.key.flatten(0, 1)[slots]
    for actual, wanted in zip((q, stored), expected, strict=True):
        torch.testing.assert_close(actual, torch.cat((wanted.real, wanted.imag), -1))
    assert torch.equal(cache.value.flatten(0, 1)[slots], v)


def cache_with(k, v):
    """Five blocks of four positions, of which these keys and values [T, Hkv, D] fill the second,
    third, …
    """
    cache = KVCache(*(torch.zeros(5, 4, *part.shape[1:]) for part in (k, v)))
    for stored, part in ((cache.key, k), (cache.value, v)):
        stored.flatten(0, 1)[4 : 4 + len(part)] = part
    return cache


def one_request(queries, keys, block_size=4):
    """The meta of one request whose blocks lie in the order 1, 2, 3, …"""
    blocks = -(-keys // block_size)
    return AttentionMeta(
        block_tables=torch.arange(1, blocks + 1, dtype=torch.int32).unsqueeze(0),
        seq_lens=torch.tensor([keys], dtype=torch.int32),
        query_starts=torch.tensor([0, queries], dtype=torch.int32),
        slots=torch.arange(keys - queries, keys) + block_size,
        max_query=queries,
        max_seq=keys,
    )


@pytest.mark.parametrize("window", [None, 5])
def test_attention_is_that_of_torch(ops, window):
    queries, keys = 6, 15
    q, k, v = torch.randn(queries, 6, 8), torch.randn(keys, 2, 8), torch.randn(keys, 2, 8)
    cache = cache_with(k, v)
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    mask = (distance >= 0) & (distance < (window or keys))
    expected = functional.scaled_dot_product_attention(
        q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1), mask, scale=0.3, enable_gqa=True
    )
    spec = AttentionSpec(scale=0.3, window=window)
    actual = ops.attention(q, cache, one_request(queries, keys), spec)
    torch.testing.assert_close(actual, expected.transpose(0, 1))


def test_softcap_bounds_scores(ops):
    """With a cap near zero all keys weigh the same."""
    q, k, v = torch.randn(1, 1, 8), torch.randn(7, 1, 8) * 9, torch.randn(7, 1, 8)
    cache = cache_with(k, v)
    actual = ops.attention(q, cache, one_request(1, 7), AttentionSpec(scale=1, softcap=1e-6))
    torch.testing.assert_close(actual[0], v.mean(0), rtol=1e-4, atol=1e-5)


def test_gated_activations_are_those_of_torch(ops):
    gate, up = torch.randn(3, 9), torch.randn(3, 9)
    silu = torch.nn.SiLU()(gate) * up
    gelu = torch.nn.GELU(approximate="tanh")(gate) * up
    torch.testing.assert_close(ops.gated(gate, up, "silu"), silu)
    torch.testing.assert_close(ops.gated(gate, up, "gelu_tanh"), gelu)


def test_matmul_is_linear(ops):
    x, weight, bias = torch.randn(3, 8), torch.randn(5, 8), torch.randn(5)
    torch.testing.assert_close(
        ops.any_matmul(x, Dense(weight), bias), functional.linear(x, weight, bias)
    )


def test_embedding_is_that_of_torch():
    ops = reference.create(torch.device("cpu"), threads=None, dtype=torch.bfloat16)
    weight, tokens = torch.randn(9, 8), torch.tensor([8, 0, 8], dtype=torch.int32)
    actual = ops.any_embed(tokens, Dense(weight), 2.0)
    assert torch.equal(actual, (2 * functional.embedding(tokens, weight)).bfloat16())


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [  # the known-answer vectors that Random123 publishes for philox4x32 with ten rounds
        (
            "00000000 00000000 00000000 00000000",
            "00000000 00000000",
            "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
        ),
        (
            "ffffffff ffffffff ffffffff ffffffff",
            "ffffffff ffffffff",
            "408f276d 41c83b0e a20bc7c6 6d5451fd",
        ),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, block):
    def words(text):
        return torch.tensor([[int(word, 16)] for word in text.split()])

    assert torch.equal(philox(words(counter), words(key)), words(block))


def test_uniform_takes_its_words_from_the_documented_places(ops):
    seed = -0x123456789ABCDEF
    counter = torch.tensor([[41], [3], [7], [0]])
    key = torch.tensor([[seed & 0xFFFFFFFF], [seed >> 32 & 0xFFFFFFFF]])
    expected = int(philox(counter, key)[0]) // 256 / 2**24
    choice, position = (torch.tensor([x], dtype=torch.int32) for x in (3, 41))
    assert ops.uniform(torch.tensor([seed]), choice, position, 7).item() == expected


def test_default_dtype_and_summary(ops):
    assert ops.dtype == torch.float32
    assert "slow" in ops.summary
    assert reference.create(torch.device("meta"), threads=None, dtype=None).dtype == torch.bfloat16
