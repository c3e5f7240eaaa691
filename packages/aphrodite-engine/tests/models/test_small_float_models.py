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
def made(make_checkpoint, in_eight_bits):
    """A plain checkpoint, and a function that gives logits of it with rounded projections.

    Those of exact products, and those of the compiled kernels.
    """
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))

    def rounded(name):
        weights = {}
        for key, parameter in model.named_parameters():
            if key.endswith("_proj.weight"):
                module = key.removesuffix(".weight")
                weights[module] = find_quantization(name).quantize(Dense(parameter.detach()))
                parameter.data.copy_(weights[module].dequantize())
        with torch.no_grad():
            exact = model(torch.tensor([TOKENS])).logits[0]
            in_eight_bits(model, weights)
            return exact, model(torch.tensor([TOKENS])).logits[0]

    return path, rounded


def logits(made):
    made.start(0, TOKENS)
    return made.step((0, 0, len(TOKENS)))[0]


def check(decoders, expected):
    """Activations that are rounded as the tiles do are all that sets compiled kernels apart."""
    for decoder, wanted in zip(decoders, expected, strict=True):
        torch.testing.assert_close(logits(decoder), wanted, rtol=1e-4, atol=1e-4)


def groups(**weights):
    group = {"targets": ["Linear"], "weights": weights}
    return {
        "quant_method": "compressed-tensors", "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }  # fmt: skip


INT8 = groups(type="int", num_bits=8, strategy="channel")
MODELOPT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
QUARK = {
    "quant_method": "quark", "exclude": ["*lm_head"],
    "global_quant_config": {
        "weight": {
            "dtype": "fp4", "qscheme": "per_group", "ch_axis": -1, "group_size": 32,
            "scale_format": "e8m0",
        },
    },
}  # fmt: skip
MXFP4 = groups(type="float", num_bits=4, strategy="group", group_size=32)


def as_mxfp4(prefix, packed):
    scale = packed.scale.view(torch.uint8)
    return {f"{prefix}.weight_packed": packed.elements, f"{prefix}.weight_scale": scale}


def as_quark(prefix, packed):
    scale = packed.scale.view(torch.uint8)
    return {f"{prefix}.weight": packed.elements, f"{prefix}.weight_scale": scale}


def as_int8(prefix, packed):
    return {f"{prefix}.weight": packed.weight, f"{prefix}.weight_scale": packed.scale}


def as_modelopt(prefix, packed):
    return {
        f"{prefix}.weight": packed.elements, f"{prefix}.weight_scale": packed.scale,
        f"{prefix}.weight_scale_2": packed.row_scale[0, 0].clone(),
        f"{prefix}.input_scale": torch.tensor(0.5),
    }  # fmt: skip


def as_scb(prefix, packed):
    return {f"{prefix}.weight": packed.weight, f"{prefix}.SCB": packed.scale.flatten() * 127}


@pytest.mark.parametrize("name", ["int8", "int4", "nf4", "fp6", "mxfp4", "mxfp8", "nvfp4"])
def test_plain_weights_are_quantised_while_they_are_loaded(made, backend, native, decoder_on, name):
    path, rounded = made
    expected = rounded(name)
    check([decoder_on(path, each, quantization=name) for each in (backend, native)], expected)
    plain = logits(decoder_on(path, backend))
    assert (plain - expected[0]).abs().max() > 1e-3, "nothing was rounded"


@pytest.mark.parametrize(
    ("name", "stated", "written"),
    [
        ("int8", INT8, as_int8),
        ("mxfp4", MXFP4, as_mxfp4),
        ("mxfp4", QUARK, as_quark),
        ("nvfp4", MODELOPT, as_modelopt),
        ("int8", {"quant_method": "bitsandbytes"}, as_scb),
    ],
)
def test_a_checkpoint_that_is_quantised_is_read(
    made, backend, native, decoder_on, name, stated, written
):
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
    config["quantization_config"] = stated
    (path / "config.json").write_text(json.dumps(config))
    check([decoder_on(path, each) for each in (backend, native)], expected)
