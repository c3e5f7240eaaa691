"""Weights that optimum-quanto wrote, decoded as it decodes them, and what is wrong."""

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Scaled
from aphrodite_quant import FormatError, TensorError


@pytest.mark.parametrize("case", ["int8", "float8"])
def test_golden_weights_are_decoded(opened, case):
    weights, expected = opened(f"quanto:{case}")
    found = weights.packed("layer", (16, 256))
    assert isinstance(found, Scaled) and found.per_row
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=0)


def test_a_module_that_was_left_alone_is_dense(write_module):
    config = {"quant_method": "quanto", "weights": "int8"}
    assert isinstance(write_module(config, {"weight": torch.ones(2, 4)}).packed("layer"), Dense)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight._scale": None}, "no tensor 'layer.weight._scale'"),
        ({"weight._scale": torch.zeros(16, 1)}, "_scale' holds 0.0; expected numbers above 0"),
        ({"weight._scale": torch.ones(16, 2)}, r"_scale' is \[16, 2\], but the scales of \[16, 25"),
        ({"weight._data": torch.ones(16, 256)}, "_data' is float32 .* expected a matrix of int8"),
        ({"weight._data": None}, "'layer.weight' is missing, but beside it"),
        ({"input_scale": torch.tensor(torch.nan)}, "input_scale' holds nan"),
    ],
)
def test_what_is_wrong_is_named(opened, changes, message):
    weights, _ = opened("quanto:int8", **changes)
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        weights.packed("layer")


def test_four_bits_are_refused(opened):
    with pytest.raises(FormatError, match="quanto's weights are 'int4', which is not supported"):
        opened("quanto:int8", stated={"weights": "int4"})
