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
    "marlin24-8", "quip-e8p12", "quip-e8p12rvq3b", "quip-e8p12rvq4b", "squeezellm-3",
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
    checkpoint = Checkpoint(FOLDER, "safetensors", store, {"quantization_config": config}, {})
    found = find_format(checkpoint).reader(checkpoint)(store, MODULE).dequantize()
    torch.testing.assert_close(found, made.decoded, rtol=1e-5, atol=1e-6)
    assert (found - weight).norm() < ERRORS.get(name, 0.36) * weight.norm()
