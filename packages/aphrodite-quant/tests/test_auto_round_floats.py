"""Floats that AutoRound packed itself, decoded as it does."""

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_quant import FormatError, TensorError

CASES = ("mxfp4", "mxfp8", "nvfp4", "fp8-static")


@pytest.mark.parametrize("case", CASES)
def test_what_the_tool_wrote_is_what_the_tool_decodes(opened, case):
    weights, expected = opened(f"auto-round-floats:{case}")
    found = weights.packed("layer", tuple(expected.shape)).dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_one_scale_and_scales_of_blocks(write_module):
    weight = torch.arange(48.0).reshape(4, 12).to(torch.float8_e4m3fn)
    whole = {"weight": weight, "weight_scale": torch.tensor([0.5])}
    stated = {"quant_method": "auto-round", "bits": 8, "data_type": "fp", "group_size": 0}
    found = write_module(stated, whole).packed("layer").dequantize()
    torch.testing.assert_close(found, weight.float() / 2)
    scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    blocks = {"weight": weight, "weight_scale_inv": scale}
    stated |= {"group_size": [2, 6], "weight_block_size": [2, 6]}
    found = write_module(stated | {"packing_format": "auto_round:fp8"}, blocks).packed("layer")
    spread = scale.repeat_interleave(2, 0).repeat_interleave(6, 1)
    torch.testing.assert_close(found.dequantize(), weight.float() * spread)


@pytest.mark.parametrize("case", CASES)
def test_a_module_outside_of_the_blocks_is_plain(opened, case):
    everything = ("weight", "weight_packed", "weight_scale", "weight_global_scale")
    nothing = dict.fromkeys([*everything, "input_scale", "input_global_scale"])
    weights, _ = opened(f"auto-round-floats:{case}", **nothing | {"weight": torch.ones(2, 4)})
    assert isinstance(weights.packed("layer"), Dense)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"data_type": "nvfp4_v2"}, "data_type 'nvfp4_v2' of 4 bits; present are fp 8, mx_fp 4"),
        ({"bits": 6}, "data_type 'mx_fp' of 6 bits"),
        ({"bits": "4"}, "data_type 'mx_fp' of '4' bits"),
        ({"group_size": None}, "group_size of strategy group is None"),
        ({"extra_config": {"a": {"bits": 5}}}, "data_type 'mx_fp' of 5 bits"),
        ({"rotation_config": {"hadamard_type": "hadamard"}}, "rotation_config turns activations"),
        ({"spinquant_config": {"r1": True}}, "spinquant_config turns activations"),
        ({"packing_format": "auto_round:llm_compressor_nvfp4_e5m3"}, "e5m3' of AutoRound is not s"),
        ({"data_type": "fp", "bits": 8, "weight_block_size": 3}, "weight_block_size is 3"),
    ],
)
def test_settings_that_no_format_has(opened, stated, message):
    with pytest.raises(FormatError, match=message):
        opened("auto-round-floats:mxfp4", stated)


def test_what_is_wrong_is_named(opened):
    weights, _ = opened("auto-round-floats:mxfp4", {"group_size": 16})
    with pytest.raises(TensorError, match=r"'layer\.weight_packed' is uint8 .* of 1 x 16"):
        weights.packed("layer")
    weights, _ = opened("auto-round-floats:mxfp4", weight_scale=None)
    with pytest.raises(TensorError, match=r"'layer\.weight' is missing, but beside it lies"):
        weights.packed("layer")
