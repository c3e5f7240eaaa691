"""Layers made from weights: what is stacked, what is taken, and how angles come about."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from aphrodite_engine.errors import ModelError
from aphrodite_engine.keys import Keys
from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.layers.linear import Parallel
from aphrodite_engine.layers.norm import Norm
from aphrodite_engine.layers.rope import Divided, Llama3, Rope, Yarn, read_rope
from aphrodite_engine.layers.window import read_windows
from aphrodite_kernels.backends import reference
from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType
from aphrodite_kernels.protocols import Inputs
from aphrodite_kernels.rounded import Rounded

CPU = torch.device("cpu")
BACKEND = reference.create(CPU, threads=None, dtype=None)


def dense(rows, dtype=torch.float32):
    return Dense(torch.randn(rows, 32).to(dtype))


def q8(rows):
    blocks = torch.randint(0, 50, (rows, 34), dtype=torch.uint8)
    blocks[:, 1] = 0x2C  # scales around 1 / 16
    return GgmlBlocks(blocks, GgmlType.Q8_0)


def only_dense(weight):
    return Dense(weight.dequantize())


@pytest.mark.parametrize(
    ("weights", "products"),
    [
        ([dense(4), dense(2), dense(3)], 1),
        ([dense(4), dense(2), q8(3)], 2),
        ([q8(4), dense(2), dense(3)], 2),
        ([dense(4), dense(2, torch.bfloat16), dense(3)], 3),
        ([q8(4), q8(2), q8(3)], 1),
    ],
)
def test_neighbours_of_one_layout_are_one_product(weights, products):
    biases = [torch.randn(weight.out_features) for weight in weights]
    x = torch.randn(5, 32)
    calls = []

    def matmul(x, weight, bias=None):
        calls.append(weight.out_features)
        return reference.matmul(x, weight, bias)

    counting = replace(BACKEND, any_matmul=matmul)
    parallel = Parallel(counting, list(zip(weights, biases, strict=True)))
    outputs = parallel(x)
    assert len(calls) == products
    for weight, bias, found in zip(weights, biases, outputs, strict=True):
        torch.testing.assert_close(found, x @ weight.dequantize().T + bias)


def test_what_the_backend_lays_out_alike_is_one_product():
    alike = replace(BACKEND, pack=dict.fromkeys((Dense, GgmlBlocks), only_dense))
    parallel = Parallel(alike, [(dense(4), None), (q8(2), None), (dense(3, torch.bfloat16), None)])
    assert len(parallel._products) == 1
    assert [output.shape[1] for output in parallel(torch.randn(5, 32))] == [4, 2, 3]


def test_a_part_without_bias_is_a_product_of_its_own():
    outputs = Parallel(BACKEND, [(dense(4), torch.ones(4)), (dense(2), None)])(torch.zeros(1, 32))
    assert [output.tolist() for output in outputs] == [[[1.0] * 4], [[0.0] * 2]]


def halves(x):
    """x [T, 32] in eight bits, every 16 columns with a scale of their own."""
    scale = x.view(-1, 2, 16).abs().amax(2) / 448
    codes = (x / scale.repeat_interleave(16, 1)).to(torch.float8_e4m3fn)
    return Rounded(codes, scale, 16, x.dtype)


def test_a_norm_rounds_for_the_product_behind_it():
    def add_rms_norm(x, residual, weight, eps):
        normed, total = BACKEND.add_rms_norm(x, residual, weight, eps)
        return halves(normed), total

    rounding = replace(
        BACKEND,
        matmul={Dense: BACKEND.any_matmul},
        inputs={Dense: lambda weight: Inputs(add_rms_norm, BACKEND.gated)},
    )
    x, residual, weight = torch.randn(5, 32), torch.randn(5, 32), dense(4)
    norm = Norm(rounding, torch.rand(32), 1e-6)
    normed, total = norm.add(x, residual)
    for parts, rounded in (([weight], True), ([weight, q8(3)], False)):
        parallel = Parallel(rounding, [(part, None) for part in parts])
        found, found_total = norm.into(parallel.inputs).add(x, residual)
        assert isinstance(found, Rounded) == rounded
        assert torch.equal(found_total, total)
        given = halves(normed).widened() if rounded else normed
        torch.testing.assert_close(parallel(found)[0], given @ weight.dequantize().T)
    first, _ = norm.into(parallel.inputs).add(x, None)
    assert torch.equal(first, norm(x))


def test_a_builder_asks_for_full_names_and_shapes():
    asked = []

    class Source:
        def packed(self, name, shape):
            asked.append((name, shape))
            return Dense(torch.zeros(shape))

        def tensor(self, name, shape):
            asked.append((name, shape))
            return torch.zeros(shape)

    block = Builder(Source(), BACKEND).at("model").at("layers.3")
    block.linear("o_proj", (8, 4), bias=True)
    norm = block.norm("norm", 4, 1e-6, offset=1.0)
    assert asked == [
        ("model.layers.3.o_proj.bias", (8,)),
        ("model.layers.3.o_proj", (8, 4)),
        ("model.layers.3.norm.weight", (4,)),
    ]
    torch.testing.assert_close(norm(torch.full((1, 4), 2.0)), torch.ones(1, 4))


def test_a_table_holds_cosines_then_sines():
    table = Rope(rotary=8, theta=100.0).table(50, CPU)
    angles = np.outer(np.arange(50), 100.0 ** -(np.arange(4) / 4))
    assert table.shape == (50, 2, 4) and table.dtype == torch.float32
    np.testing.assert_allclose(table[:, 0].numpy(), np.cos(angles), atol=1e-7)
    np.testing.assert_allclose(table[:, 1].numpy(), np.sin(angles), atol=1e-7)


OLD_SPELLINGS = {
    "default": ({"rope_theta": 5.0, "rope_scaling": None}, None),
    "llama3": (
        {
            "rope_theta": 5.0,
            "rope_scaling": {
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            },
        },
        Llama3(8.0, 1.0, 4.0, 8192),
    ),
    "yarn": (
        {
            "rope_theta": 5.0, "max_position_embeddings": 64,
            "rope_scaling": {"type": "yarn", "factor": 1.0, "attention_factor": 1.5},
        },
        Yarn(1.0, 1.5, 64, 32.0, 1.0, True),
    ),
    "divided": (
        {"rope_theta": 5.0, "rope_scaling": {"rope_type": "divided", "factors": [1, 2]}},
        Divided((1.0, 2.0)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("spelling", OLD_SPELLINGS)
def test_older_spellings(spelling):
    config, scaling = OLD_SPELLINGS[spelling]
    rope = read_rope(Keys({"max_position_embeddings": 8192} | config, "c"), 16)
    assert rope == Rope(16, 5.0, scaling)


BAD_ROPES = {
    "rope_type is 'dynamic', not default or one of divided, linear, llama3, yarn": {
        "rope_scaling": {"rope_type": "dynamic"}
    },
    "c.json, rope_scaling: the key factor is missing": {"rope_scaling": {"type": "linear"}},
    "rope_theta is 'x', not a number": {"rope_theta": "x"},
    "24 of 16 dimensions": {"partial_rotary_factor": 1.5},
    "rope_scaling is 3, not an object": {"rope_scaling": 3},
}


@pytest.mark.parametrize("message", BAD_ROPES)
def test_a_rope_that_is_not_understood_is_named(message):
    with pytest.raises(ModelError) as caught:
        read_rope(Keys(BAD_ROPES[message], "c.json"), 16)
    assert message in str(caught.value)


def test_factors_must_be_as_many_as_frequencies():
    with pytest.raises(ModelError, match="has 4 frequencies, but the checkpoint has 2 factors"):
        Rope(8, 10.0, Divided((1.0, 2.0))).table(3, CPU)


def test_windows_by_type_or_by_rule():
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    keys = Keys({"sliding_window": 5, "layer_types": types}, "c")
    assert read_windows(keys, 3, lambda layer: False) == (5, None, 5)
    assert read_windows(Keys({"sliding_window": 5}, "c"), 3, lambda layer: layer > 0) == (
        None,
        5,
        5,
    )
    assert read_windows(Keys({}, "c"), 2, lambda layer: True) == (None, None)
    with pytest.raises(ModelError, match=r"layer_types is .*, not a list of 2 times"):
        read_windows(keys, 2, lambda layer: True)
