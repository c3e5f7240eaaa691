"""Models in small numbers equal transformers with the numbers that these stand for."""

import json

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_quant import find_quantization
from safetensors.torch import load_file, save_file

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
CONFIG = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def made(make_checkpoint):
    """A plain checkpoint, and a function that gives its logits with rounded projections."""
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))

    def rounded(name):
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.endswith("_proj.weight"):
                    packed = find_quantization(name).quantize(Dense(parameter))
                    parameter.copy_(packed.dequantize())
            return model(torch.tensor([TOKENS])).logits[0]

    return path, rounded


def logits(made):
    made.start(0, TOKENS)
    return made.step((0, 0, len(TOKENS)))[0]


def as_mxfp4(prefix, packed):
    scale = packed.scale.view(torch.uint8)
    return {f"{prefix}.weight_packed": packed.elements, f"{prefix}.weight_scale": scale}


def as_int8(prefix, packed):
    return {f"{prefix}.weight": packed.weight, f"{prefix}.weight_scale": packed.scale}


def as_scb(prefix, packed):
    return {f"{prefix}.weight": packed.weight, f"{prefix}.SCB": packed.scale.flatten() * 127}


@pytest.mark.parametrize("name", ["int8", "mxfp4"])
def test_plain_weights_are_quantised_while_they_are_loaded(made, native, decoder_on, name):
    path, rounded = made
    expected = rounded(name)
    found = logits(decoder_on(path, native, quantization=name))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = logits(decoder_on(path, native))
    assert (plain - expected).abs().max() > 1e-3, "nothing was rounded"


@pytest.mark.parametrize(
    ("name", "method", "written"),
    [
        ("int8", "compressed-tensors", as_int8),
        ("mxfp4", "compressed-tensors", as_mxfp4),
        ("int8", "bitsandbytes", as_scb),
    ],
)
def test_a_checkpoint_that_is_quantised_is_read(made, native, decoder_on, name, method, written):
    path, rounded = made
    expected, tensors = rounded(name), {}
    for key, tensor in load_file(path / "model.safetensors").items():
        if key.endswith("_proj.weight"):
            packed = find_quantization(name).quantize(Dense(tensor))
            tensors |= written(key.removesuffix(".weight"), packed)
        else:
            tensors[key] = tensor
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method}
    (path / "config.json").write_text(json.dumps(config))
    found = logits(decoder_on(path, native))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
