"""Weights that torchao wrote, decoded as it decodes them."""

import pytest
import torch
from aphrodite_kernels.layouts import Scaled
from aphrodite_quant import TensorError


def test_golden_weights_are_decoded(opened):
    weights, expected = opened("torchao-int8wo")
    found = weights.packed("layer", (16, 576))
    assert isinstance(found, Scaled)
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_weight_scale": None}, "_weight_scale"),
        ({"_weight_scale": torch.ones(16, 2)}, r"_weight_scale' is float32 \[16, 2\]"),
        ({"_weight_scale": torch.full((16, 1), torch.inf)}, "holds inf"),
        ({"_weight_qdata": torch.ones(16, 576)}, "expected a matrix of int8"),
        ({"_weight_zero_point": torch.ones(16, 1, dtype=torch.int8)}, "is not 0 everywhere"),
    ],
)
def test_what_is_wrong_is_named(opened, changes, message):
    weights, _ = opened("torchao-int8wo", **changes)
    with pytest.raises(TensorError, match=message):
        weights.packed("layer")
