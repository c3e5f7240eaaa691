"""Weights that bitsandbytes wrote, decoded as it decodes them."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Lookup, Scaled
from aphrodite_quant import TensorError

NF4 = "weight.quant_state.bitsandbytes__nf4"


def as_json(text):
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def test_golden_eight_bit_weights_are_decoded(opened):
    weights, expected = opened("bnb-int8")
    packed = weights.packed("layer", (16, 576))
    assert isinstance(packed, Scaled)
    assert (packed.dequantize() - expected).norm() / expected.norm() < 1e-3


def test_an_order_of_gpu_tiles_is_refused(opened):
    weights, _ = opened("bnb-int8", weight_format=torch.tensor(2, dtype=torch.uint8))
    with pytest.raises(TensorError, match=r"layer.weight_format' is uint8 .* 2; expected a uint8"):
        weights.packed("layer")


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-nf4-dq", "bnb-fp4", "bnb-int8"])
def test_no_tensor_is_left_unread(opened, name):
    weights, _ = opened(name)
    names = set(weights.store.names())
    read = Mock(wraps=weights.store)
    replace(weights, store=read).packed("layer")
    assert {call.args[0] for call in read.read.call_args_list} == names


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-nf4-dq", "bnb-fp4"])
def test_golden_four_bit_weights_are_decoded(opened, name):
    """The golden modules were applied in bfloat16: table, scales and products rounded to it."""
    weights, expected = opened(name)
    packed = weights.packed("layer", (16, 576))
    assert isinstance(packed, Lookup)
    rounded = replace(
        packed,
        table=packed.table.bfloat16().float(),
        scale=packed.scale.bfloat16().float(),
    )
    assert torch.equal(rounded.dequantize().bfloat16().float(), expected.float())


@pytest.mark.parametrize(
    ("case", "group"),
    [
        ("nf4-32-96", 32), ("nf4-64-96", 32), ("nf4-128-96", 32), ("fp4-256-96", 32),
        ("nf4-128-100", 4), ("nf4-256-512", 256),
    ],
)  # fmt: skip
def test_blocks_of_every_size_are_decoded_across_rows(opened, case, group):
    weights, expected = opened(f"bnb-blocks:{case}")
    packed = weights.packed("layer", tuple(expected.shape))
    assert isinstance(packed, Lookup) and packed.group == group
    torch.testing.assert_close(packed.dequantize(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["bnb-nf4", "bnb-int8"])
def test_a_module_that_should_be_plain_is_not_scaled(opened, name):
    weights, _ = opened(name, {"llm_int8_skip_modules": ["lm_head", "layer"]})
    with pytest.raises(TensorError, match=r"layer.weight' .* llm_int8_skip_modules .* 'layer'"):
        weights.packed("layer")


def test_a_module_that_was_left_alone_is_dense(opened, write_module):
    plain = torch.randn(16, 576, dtype=torch.bfloat16)
    config = {"quant_method": "bitsandbytes"}
    assert isinstance(write_module(config, {"weight": plain}).packed("layer"), Dense)
    with pytest.raises(
        TensorError, match=r"'layer.weight' is bfloat16 .*, but .* layer.weight.abs"
    ):
        opened("bnb-nf4", weight=plain)[0].packed("layer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight.absmax": None}, "weight.absmax"),
        ({"weight.absmax": torch.ones(7)}, r"'layer.weight.absmax' is float32 \[7\]; .*\[144\]"),
        ({"weight.absmax": torch.full((144,), torch.nan)}, "absmax' holds nan"),
        ({"weight.quant_map": torch.zeros(8)}, r"quant_map' is float32 \[8\]; expected .* \[16\]"),
        ({NF4: None}, "needs one of .* found none"),
        ({NF4: as_json("{")}, "bitsandbytes__nf4' is not valid JSON"),
        ({NF4: as_json("[]")}, "holds a JSON list, an object is needed"),
        ({NF4: as_json('{"blocksize": 64}')}, "says the shape is None"),
        ({NF4: as_json('{"blocksize": 0, "shape": [16, 576]}')}, "says blocksize is 0"),
        ({NF4: as_json('{"blocksize": 64, "shape": [64, 9]}')}, "expected an even number of col"),
        ({NF4: as_json('{"blocksize": 64, "shape": [17, 576]}')}, "expected two codes to a byte"),
    ],
)
def test_what_is_wrong_is_named(opened, changes, message):
    weights, _ = opened("bnb-nf4", **changes)
    with pytest.raises(TensorError, match=message):
        weights.packed("layer")
