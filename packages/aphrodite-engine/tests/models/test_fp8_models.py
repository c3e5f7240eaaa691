"""Models of eight-bit floats equal transformers with the numbers that these stand for."""

import json

import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.model import open_model
from aphrodite_engine.loading.resolve import Machine, resolve
from aphrodite_kernels.layouts import Dense
from aphrodite_quant import find_quantization
from safetensors.torch import load_file, save_file

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
CONFIG = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture
def checkpoint(make_checkpoint):
    """A plain checkpoint, and the logits of its model once the projections are rounded."""
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("_proj.weight"):
                parameter.copy_(find_quantization("fp8").quantize(Dense(parameter)).dequantize())
        return path, model(torch.tensor([TOKENS])).logits[0]


def logits(made):
    made.start(0, TOKENS)
    return made.step((0, 0, len(TOKENS)))[0]


def quantize_on_disk(path):
    """As tools write it."""
    tensors = {}
    for name, tensor in load_file(path / "model.safetensors").items():
        tensors[name] = tensor
        if name.endswith("_proj.weight"):
            packed = find_quantization("fp8").quantize(Dense(tensor))
            tensors[name], tensors[f"{name}_scale"] = packed.weight, packed.scale
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    (path / "config.json").write_text(json.dumps(config))


def test_plain_weights_are_quantised_while_they_are_loaded(checkpoint, backend, decoder_on):
    path, expected = checkpoint
    found = logits(decoder_on(path, backend, quantization="fp8"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    plain = logits(decoder_on(path, backend))
    assert (plain - expected).abs().max() > 1e-2, "nothing was rounded"


def test_a_checkpoint_that_is_quantised_is_read(checkpoint, backend, native, decoder_on):
    path, expected = checkpoint
    quantize_on_disk(path)
    for each in (backend, native):
        torch.testing.assert_close(logits(decoder_on(path, each)), expected, rtol=1e-4, atol=1e-4)


def test_the_plan_counts_what_is_loaded(checkpoint):
    source = open_model(checkpoint[0])
    plain, packed = source.facts.weight_bytes, source.quantized("fp8").facts.weight_bytes
    projections = 2 * (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 112)
    assert plain - packed == 3 * projections


def test_only_plain_checkpoints_are_quantised(checkpoint, backend):
    path, _ = checkpoint
    quantize_on_disk(path)
    source = open_model(path).quantized("fp8")
    assert source.quantization is None and source.format == "fp8"
    machine = Machine(
        device="cpu", dtype="float32", free_memory=2**30, kv_dtypes=backend.kv_dtypes, threads=1
    )
    resolve(EngineConfig(model="m", quantization="fp8"), source.facts, machine)
    with pytest.raises(ConfigError, match=r"quantization is gguf, but .* is in the format fp8"):
        resolve(EngineConfig(model="m", quantization="gguf"), source.facts, machine)
