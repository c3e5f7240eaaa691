"""Weights that torchao wrote, decoded as it decodes them."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Scaled
from aphrodite_quant import TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden" / "torchao-int8wo.safetensors"


@pytest.fixture
def opened(tmp_path):
    """The golden module with some tensors replaced (None: left out)."""

    def write(**changes):
        tensors = load_file(GOLDEN) | changes
        kept = {f"layer.{leaf}": tensor for leaf, tensor in tensors.items() if tensor is not None}
        expected = kept.pop("layer.effective_weight")
        save_file(kept, tmp_path / "model.safetensors")
        config = {"quantization_config": {"quant_method": "torchao"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path)), expected

    return write


def test_golden_weights_are_decoded(opened):
    weights, expected = opened()
    found = weights.packed("layer", (16, 576))
    assert isinstance(found, Scaled)
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_weight_scale": None}, "_weight_scale"),
        ({"_weight_scale": torch.ones(16, 2)}, r"_weight_scale' is float32 \[16, 2\]"),
        ({"_weight_scale": torch.full((16, 1), torch.inf)}, "holds inf"),
        ({"_weight_qdata": torch.ones(16, 576)}, "expected an int8 matrix"),
        ({"_weight_zero_point": torch.ones(16, 1, dtype=torch.int8)}, "is not 0 everywhere"),
    ],
)
def test_what_is_wrong_is_named(opened, changes, message):
    weights, _ = opened(**changes)
    with pytest.raises(TensorError, match=message):
        weights.packed("layer")
