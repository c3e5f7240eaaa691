"""Eight-bit floats: read from checkpoints, and made of plain weights."""

import json

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Scaled
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from aphrodite_quant.quantization import find_quantization, quantization_names
from safetensors.torch import save_file

E4M3 = torch.float8_e4m3fn


@pytest.fixture
def written(tmp_path):
    """A checkpoint of some tensors of one module, opened."""

    def write(**tensors):
        names = {f"layer.{name}": tensor for name, tensor in tensors.items()}
        save_file(names, tmp_path / "model.safetensors")
        config = {"quantization_config": {"quant_method": "fp8"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path))

    return write


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
        ({"weight_scale": torch.zeros(200)}, "holds 0.0; scales are finite and above 0"),
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


def test_a_quantisation_that_nobody_has_is_refused():
    assert "fp8" in quantization_names()
    with pytest.raises(FormatError, match=r"cannot be quantised to 'int99' .* present are .*fp8"):
        find_quantization("int99")
