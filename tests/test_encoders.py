"""What the encoders of benchmarks/quality write of a small matrix is read as they meant it."""

import importlib
from pathlib import Path

import pytest
import torch
from aphrodite_quant import Checkpoint, find_format
from aphrodite_quant.containers.memory import MemoryStore

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "quality"
MODULE = "model.layers.0.mlp.up_proj"
NAMES = (
    "aqlm-1x16", "aqlm-2x8", "awq-gemv", "awq-gemv_fast", "bitnet", "exl2", "marlin", "marlin24-4",
    "marlin24-8", "quip-e8p12", "quip-e8p12rvq3b", "quip-e8p12rvq4b", "quip-sharp-e8p12",
    "quip-sharp-e8p12rvq3b", "quip-sharp-e8p12rvq4b", "squeezellm-3",
    "squeezellm-4", "squeezellm-4-sparse", "vptq-v6-k1024-outliers", "vptq-v8-k4096-256",
)  # fmt: skip
ERRORS = {"bitnet": 0.6, "marlin24-4": 0.45, "marlin24-8": 0.4}
"""At most, of normally distributed numbers; others lose less than 0.36 of their size."""


@pytest.fixture
def encoders(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("encoded").ENCODERS


def test_all_are_tried(encoders):
    assert sorted(encoders) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_matrix_is_read_as_it_was_meant(encoders, name):
    weight = torch.randn(192, 384, generator=torch.Generator().manual_seed(1)) / 10
    made = encoders[name].encode(weight)
    store = MemoryStore(FOLDER, {f"{MODULE}.{leaf}": t for leaf, t in made.tensors.items()})
    config = encoders[name].config({MODULE: tuple(weight.shape)}, ["model.layers.1.mlp.up_proj"])
    stated = {encoders[name].stated_in: config}
    checkpoint = Checkpoint(FOLDER, "safetensors", store, stated, {})
    found = find_format(checkpoint).reader(checkpoint)(store, MODULE).dequantize()
    torch.testing.assert_close(found, made.decoded, rtol=1e-5, atol=1e-6)
    assert (found - weight).norm() < ERRORS.get(name, 0.36) * weight.norm()


def test_fused_matrices_are_read_as_they_were_meant(encoders):
    generator = torch.Generator().manual_seed(1)
    encoder, place = encoders["quip-sharp-e8p12rvq3b"], MODULE.rpartition(".")[0]
    weights = [torch.randn(96, 128, generator=generator) / size for size in (10, 40)]
    made = encoder.encode_fused(weights)
    store = MemoryStore(
        FOLDER, {f"{place}.upgate_proj.{leaf}": t for leaf, t in made.tensors.items()}
    )
    stated = {encoder.stated_in: encoder.config({}, [])}
    checkpoint = Checkpoint(FOLDER, "safetensors", store, stated, {})
    read = find_format(checkpoint).reader(checkpoint)
    for name, weight, meant in zip(("up", "gate"), weights, made.decoded.split(96), strict=True):
        found = read(store, f"{place}.{name}_proj").dequantize()
        torch.testing.assert_close(found, meant, rtol=1e-5, atol=1e-6)
        assert (found - weight).norm() < 0.2 * weight.norm()


def test_a_whole_model_of_fused_matrices_is_sound(encoders, tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**shape, **heads))
    model.save_pretrained(tmp_path / "plain")
    encoded = importlib.import_module("encoded")
    original = encoded.Original.open(tmp_path / "plain")
    written = encoded.write(original, encoders["quip-sharp-e8p12"], tmp_path / "packed")
    assert len(written.encoded) == 14
    assert encoded.difference(written, original.survey.projections) < 1e-4
    assert encoded.problems(written.path, torch.device("cpu")) == ""
