"""Eight-bit floats: read from checkpoints, and made of plain weights."""

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Scaled
from aphrodite_quant import FormatError, TensorError
from aphrodite_quant.quantization import find_quantization, quantization_names

E4M3 = torch.float8_e4m3fn


@pytest.fixture
def written(write_module):
    """A checkpoint of some tensors of one module, opened."""
    return lambda **tensors: write_module({"quant_method": "fp8"}, tensors)


def weight(rows=200, columns=384):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).to(E4M3)


@pytest.mark.parametrize(
    ("name", "shape", "block"),
    [
        ("weight_scale", (), (200, 384)),
        ("weight_scale", (1,), (200, 384)),
        ("weight_scale", (200,), (1, 384)),
        ("weight_scale", (200, 1), (1, 384)),
        ("weight_scale_inv", (2, 3), (128, 128)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_of_every_kind(written, name, shape, block, dtype):
    packed, scale = weight(), (torch.rand(shape) + 0.5).to(dtype)
    found = written(weight=packed, **{name: scale}).packed("layer", (200, 384))
    assert isinstance(found, Scaled)
    assert found.block == block
    rows, columns = (-(-extent // part) for extent, part in zip((200, 384), block, strict=True))
    wide = scale.float().reshape(rows, columns)
    wide = wide.repeat_interleave(block[0], 0)[:200].repeat_interleave(block[1], 1)[:, :384]
    assert torch.equal(found.dequantize(), packed.float() * wide)


def test_blocks_of_another_size_with_powers_of_two(write_module):
    packed = weight()
    scale = torch.tensor(2.0) ** torch.randint(-9, 3, (7, 6))
    tensors = {"weight": packed, "weight_scale_inv": scale.to(torch.float8_e8m0fnu)}
    config = {"quant_method": "fp8", "weight_block_size": [32, 64], "scale_fmt": "ue8m0"}
    found = write_module(config, tensors).packed("layer", (200, 384))
    wide = scale.repeat_interleave(32, 0)[:200].repeat_interleave(64, 1)
    assert torch.equal(found.dequantize(), packed.float() * wide)


def test_the_scale_of_activations_changes_no_weight(written):
    scales = {"weight_scale": torch.tensor(0.5), "input_scale": torch.tensor(0.25)}
    found = written(weight=weight(), **scales).packed("layer").dequantize()
    assert torch.equal(found, weight().float() * 0.5)


@pytest.mark.parametrize("field", ["ignored_layers", "modules_to_not_convert"])
def test_a_module_that_should_be_plain_is_not_scaled(write_module, field):
    config = {"quant_method": "fp8", field: ["other", "re:lay.*"]}
    tensors = {"weight": weight(), "weight_scale": torch.tensor(1.0)}
    with pytest.raises(TensorError, match=rf"'layer.weight' is float8.*{field}.* 're:lay"):
        write_module(config, tensors).packed("layer")
    plain = {"weight": torch.ones(4, 8)}
    assert isinstance(write_module(config, plain).packed("layer"), Dense)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"activation_scheme": "none"}, "activation_scheme is dynamic or static, found 'none'"),
        ({"weight_block_size": [128]}, r"weight_block_size is \[128\], expected two"),
        ({"weight_block_size": [0, 128]}, r"is \[0, 128\], expected two"),
        ({"ignored_layers": "lm_head"}, "ignored_layers is 'lm_head', expected a list"),
        ({"ignored_layers": [3]}, r"ignored_layers is \[3\], expected a list"),
        ({"ignored_layers": ["re:("]}, r"ignored_layers has 're:\(', no pattern"),
    ],
)
def test_settings_that_the_format_does_not_have(write_module, stated, message):
    with pytest.raises(FormatError, match=message):
        write_module({"quant_method": "fp8"} | stated, {"weight": torch.ones(4, 8)})


def test_fbgemm_has_a_scale_for_every_row(write_module):
    packed, scale = weight(), torch.rand(200, 1) + 0.5
    config = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}
    tensors = {"weight": packed, "weight_scale": scale}
    found = write_module(config, tensors).packed("layer", (200, 384))
    assert torch.equal(found.dequantize(), packed.float() * scale)


def test_a_module_that_was_left_alone_is_dense(written):
    plain = torch.randn(4, 8, dtype=torch.bfloat16)
    found = written(weight=plain).packed("layer")
    assert isinstance(found, Dense)
    assert torch.equal(found.weight, plain)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "needs one of weight_scale_inv, weight_scale beside it, found none"),
        ({"weight_scale": torch.ones(199)}, r"'layer.weight_scale' is \[199\]"),
        ({"weight_scale_inv": torch.ones(3, 3)}, r"is \[3, 3\], but the scales of \[200, 384\]"),
        ({"weight_scale": torch.tensor(torch.nan)}, "'layer.weight_scale' holds nan"),
        ({"weight_scale": torch.zeros(200)}, "holds 0.0; expected numbers above 0"),
        ({"weight_scale": torch.tensor(3)}, r"is int64 \[\]; expected floating numbers"),
        (
            {"weight_scale": torch.tensor(1.0), "input_scale": torch.tensor(-1.0)},
            "'layer.input_scale' holds -1.0",
        ),
        (
            {"weight_scale": torch.tensor(1.0), "weight_scale_inv": torch.ones(2, 3)},
            "found layer.weight_scale_inv, layer.weight_scale",
        ),
    ],
)
def test_what_is_wrong_is_named(written, tensors, message):
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        written(weight=weight(), **tensors).packed("layer")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_plain_weights_become_eight_bits(dtype):
    plain = torch.randn(20, 64).to(dtype)
    plain[3] = 0
    packed = find_quantization("fp8").quantize(Dense(plain))
    assert isinstance(packed, Scaled) and packed.per_row
    wide = plain.float()
    # Half a step is a sixteenth of the number, but never less than that of the subnormal ones.
    smallest = 2.0**-10 * wide.abs().amax(1, keepdim=True) / 448
    allowed = (wide.abs() / 16).maximum(smallest) * 1.001
    assert ((packed.dequantize() - wide).abs() <= allowed).all()
    assert torch.equal(packed.dequantize()[3], wide[3])


def test_what_deepspeed_packs_while_loading_is_refused_with_what_to_do(write_module):
    with pytest.raises(FormatError, match=r"'deepspeedfp' is not supported.* choose one of .*fp8"):
        write_module({"quant_method": "deepspeedfp", "bits": 6}, {"weight": torch.ones(4, 8)})


def test_a_quantisation_that_nobody_has_is_refused():
    assert "fp8" in quantization_names()
    with pytest.raises(FormatError, match=r"cannot be quantised to 'int99' .* present are .*fp8"):
        find_quantization("int99")
