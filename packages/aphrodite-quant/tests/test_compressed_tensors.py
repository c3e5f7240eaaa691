"""Weights that llm-compressor wrote, decoded as compressed-tensors decodes them."""

import pytest
import torch
from aphrodite_quant import FormatError, TensorError


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("ct-w4a16-asym", 0), ("ct-w4a16-channel", 0), ("ct-w8a16-g64", 0), ("ct-mxfp4", 0),
        ("ct-mxfp8", 0), ("ct-nvfp4a16", 2.0**-8), ("ct-fp8-dynamic", 2.0**-8),
    ],
)  # fmt: skip
def test_golden_weights_are_decoded(opened, name, allowed):
    """Exactly, or to the bfloat16 that the golden weight was written in."""
    weights, expected = opened(name)
    found = weights.packed("layer", (16, 576)).dequantize()
    assert ((found - expected).abs() <= allowed * expected.abs()).all()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ct-mxfp4", {"weight_scale": None}, "weight_scale"),
        ("ct-mxfp4", {"weight_scale": torch.zeros(16, 17, dtype=torch.uint8)}, r"\[16, 18\]"),
        ("ct-mxfp4", {"weight_scale": torch.full((16, 18), 255, dtype=torch.uint8)}, "holds 255"),
        (
            "ct-nvfp4a16",
            {"weight_global_scale": torch.zeros(1)},
            "holds 0.0; expected numbers above 0",
        ),
        ("ct-nvfp4a16", {"weight_global_scale": torch.tensor([torch.nan])}, "holds nan"),
        ("ct-fp8-dynamic", {"weight_zero_point": torch.ones(16, 1)}, "only symmetric ones"),
        ("ct-fp8-dynamic", {"weight_scale": torch.ones(15, 1)}, r"'layer.weight_scale' is \[15"),
        ("ct-w8a16-g64", {"weight_shape": torch.tensor([16, 575])}, r"for a weight \[16, 575\]"),
        ("ct-w8a16-g64", {"weight_scale": torch.ones(16, 7)}, r"weight_scale' is \[16, 7\]"),
        ("ct-w4a16-asym", {"weight_packed": torch.ones(16, 72)}, "a matrix of int32 or uint8"),
        (
            "ct-w4a16-asym",
            {"weight_zero_point": torch.zeros(3, 9, dtype=torch.int32)},
            r"weight_zero_point' is int32 \[3, 9\]; expected int32 \[2, 9\]",
        ),
    ],
)
def test_what_is_wrong_is_named(opened, name, changes, message):
    weights, _ = opened(name, **changes)
    with pytest.raises(TensorError, match=message):
        weights.packed("layer")


def test_rotations_are_refused(opened):
    with pytest.raises(FormatError, match="has a transform_config"):
        opened("ct-mxfp4", stated={"transform_config": {"config_groups": {}}})
