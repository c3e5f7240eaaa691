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
        (
            "ct-fp8-dynamic",
            {"weight_zero_point": torch.ones(16, 1)},
            "weight_zero_point.* states float of 8 bits, symm",
        ),
        ("ct-fp8-dynamic", {"weight_scale": torch.ones(15, 1)}, r"'layer.weight_scale' is .*\[15"),
        ("ct-w8a16-g64", {"weight_shape": torch.tensor([16, 640])}, r"for a weight \[16, 640\]"),
        (
            "ct-w8a16-g64",
            {"weight_scale": torch.ones(16, 7)},
            r"weight_scale' is float32 \[16, 7\]; .*\[16, 9\]",
        ),
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


def test_a_zero_point_of_the_whole_matrix_is_one_number(opened):
    weights, _ = opened("ct-schemes:w4-tensor-asym", weight_zero_point=torch.zeros(2, 1).int())
    with pytest.raises(TensorError, match=r"weight_zero_point' is int32 \[2, 1\]"):
        weights.packed("layer")


def test_rotations_are_refused(opened):
    for transforms, message in (
        (3, "transform_config is 3, expected an object with config_groups"),
        ({"config_groups": [3]}, r"expected an object with config_groups"),
        (transform("weight_input", "input"), r"groups\.R applies to 'input', and activations are"),
        ({"config_groups": {"R": {"apply": 3}}}, "R applies to 3"),
    ):
        with pytest.raises(FormatError, match=message):
            opened("ct-mxfp4", stated={"transform_config": transforms})


def test_transforms_of_weights_are_in_them_already(opened):
    weights, expected = opened(
        "ct-mxfp8", stated={"transform_config": transform("weight_input", "weight_output")}
    )
    assert torch.equal(weights.packed("layer").dequantize(), expected.float())


def transform(*locations):
    applied = [{"targets": ["Linear"], "location": each, "inverse": False} for each in locations]
    return {"config_groups": {"R": {"type": "hadamard", "apply": applied, "randomize": False}}}


SCHEMES = [
    *(f"ct-schemes:w{bits}-{kind}" for bits in (2, 3, 5, 6, 7) for kind in ("asym", "channel")),
    *(f"ct-schemes:int8-{kind}-asym" for kind in ("channel", "group", "tensor")),
    *(f"ct-schemes:fp8-{kind}" for kind in ("tensor", "group", "block")),
    "ct-schemes:int8-tensor", "ct-schemes:int4-naive", "ct-schemes:w4-tensor-asym",
    "ct-schemes:w4-block-asym",
    "ct-older:w4-order", "ct-older:sparse", "ct-older:sparse-fp8",
]  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_decoded(opened, name):
    """As the tool decodes it, but for the order in which it rounds in float32."""
    weights, expected = opened(name)
    found = weights.packed("layer", (12, 64)).dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_columns_in_the_order_of_activations(opened):
    assert opened("ct-older:w4-order")[0].packed("layer").columns is not None


def groups(**schemes):
    """config_groups by name: targets, and what weights are (None: plain)."""
    return {
        name: {"targets": targets, "weights": weights}
        for name, (targets, weights) in schemes.items()
    }


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64, "symmetric": False}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}


@pytest.mark.parametrize(
    "schemes",
    [
        {"a": (["Linear"], FP8), "b": (["layer"], INT4)},
        {"a": (["Linear"], FP8), "b": (["re:.*ayer$"], INT4)},
        {"a": (["re:l.*"], FP8), "b": (["other", "layer"], INT4)},
        {"a": (["Embedding", "other"], FP8), "b": (["Linear"], INT4)},
    ],
)
def test_the_nearest_target_decides(opened, schemes):
    weights, expected = opened("ct-w4a16-asym", {"config_groups": groups(**schemes)})
    assert torch.equal(weights.packed("layer").dequantize(), expected)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"ignore": ["layer"]}, "or ignore leaves it unquantised"),
        ({"ignore": ["re:.*y.*"]}, "or ignore leaves it unquantised"),
        ({"config_groups": groups(a=(["other"], INT4))}, "no group of config_groups has this"),
        ({"config_groups": groups(a=(["Linear"], FP8))}, "config_groups.a states float of 8 bits"),
        (
            {"config_groups": groups(a=(["Linear"], INT4 | {"num_bits": 8}))},
            r"weight_packed' is int32 \[16, 72\] for a weight \[16, 576\], but .* states int of 8",
        ),
        (
            {"config_groups": groups(a=(["Linear"], INT4 | {"group_size": 32}))},
            r"weight_scale' is bfloat16 \[16, 9\]; expected floating numbers \[16, 18\]",
        ),
        (
            {"config_groups": groups(a=(["Linear"], INT4 | {"group_size": 512}))},
            "asymmetric, a scale for each group of 1 x 512",
        ),
        (
            {"config_groups": groups(a=(["Linear"], INT4 | {"symmetric": True}))},
            "weight_zero_point' is .* states int of 4 bits, symmetric",
        ),
    ],
)
def test_tensors_that_are_not_what_is_stated_are_refused(opened, stated, message):
    weights, _ = opened("ct-w4a16-asym", stated)
    with pytest.raises(TensorError, match=rf"model.safetensors: tensor 'layer.*{message}"):
        weights.packed("layer")


def test_a_plain_weight_is_refused_where_a_scheme_is_stated(write_module):
    plain = {"weight": torch.ones(4, 64)}
    config = {"quant_method": "compressed-tensors", "config_groups": groups(a=(["Linear"], INT4))}
    with pytest.raises(
        TensorError, match=r"'layer.weight' is float32 \[4, 64\], but .* states int"
    ):
        write_module(config, plain).packed("layer")
    ignored = write_module(config | {"ignore": ["layer"]}, plain).packed("layer")
    assert torch.equal(ignored.dequantize(), plain["weight"])


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"format": "marlin-24"}, "format 'marlin-24' is not supported"),
        ({"config_groups": None}, "config_groups is None, expected an object"),
        ({"config_groups": {"a": 3}}, "config_groups.a is 3, expected an object"),
        ({"config_groups": groups(a=(["Linear"], 3))}, "config_groups.a.weights is 3"),
        ({"config_groups": groups(a=("Linear", INT4))}, "targets is 'Linear', expected a list"),
        ({"config_groups": groups(a=(["re:("], INT4))}, r"targets has 're:\(', no pattern"),
        ({"config_groups": groups(a=(["Linear"], INT4 | {"num_bits": 9}))}, "num_bits 9; expected"),
        ({"config_groups": groups(a=(["Linear"], INT4 | {"type": "nf"}))}, "are 'nf' of num_bits"),
        ({"config_groups": groups(a=(["Linear"], INT4 | {"strategy": "x"}))}, "strategy is 'x'"),
        ({"config_groups": groups(a=(["Linear"], INT4 | {"group_size": 0}))}, "group_size of .* 0"),
    ],
)
def test_settings_that_the_format_does_not_have(opened, stated, message):
    with pytest.raises(FormatError, match=message):
        opened("ct-w4a16-asym", stated)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bitmask": torch.zeros(12, 8, dtype=torch.uint8)}, "does not keep half of each row"),
        ({"bitmask": torch.zeros(12, 7, dtype=torch.uint8)}, r"bitmask' is uint8 \[12, 7\]"),
        ({"bitmask": None}, "no tensor 'layer.bitmask'"),
        ({"shape": torch.tensor([[12], [63]])}, r"'layer.shape' is \[12, 63\]"),
    ],
)
def test_sparse_weights_that_are_not_whole_are_refused(opened, changes, message):
    with pytest.raises(TensorError, match=message):
        opened("ct-older:sparse", **changes)[0].packed("layer")


def test_the_scale_of_activations_changes_no_weight(opened):
    weights, expected = opened("ct-schemes:fp8-tensor", input_scale=torch.tensor([0.5]))
    found = weights.packed("layer").dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    weights, _ = opened("ct-schemes:fp8-tensor", input_scale=torch.tensor([torch.nan]))
    with pytest.raises(TensorError, match=r"input_scale.* is not finite"):
        weights.packed("layer")
