"""Inspections of small checkpoints: facts, memory, and products that are wrong on purpose."""

import dataclasses
import json
import re

import gguf
import numpy as np
import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.inspecting import facts
from aphrodite_kernels.backends import reference
from aphrodite_kernels.layouts import Dense, Scaled
from safetensors.torch import load_file, save_file

PLAN = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "tie_word_embeddings": True,
}  # fmt: skip
SHAPES = {
    "self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64), "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64), "mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64),
    "mlp.down_proj": (64, 128),
}  # fmt: skip
ONE = (torch.tensor([2]), torch.tensor([7]))


@pytest.fixture
def float8(tmp_path):
    """A Llama whose projections are float8 with a scale for each."""
    torch.manual_seed(0)
    tensors = {"model.embed_tokens.weight": torch.randn(96, 64, dtype=torch.bfloat16)}
    tensors["model.norm.weight"] = torch.ones(64)
    for layer in range(3):
        for name, shape in SHAPES.items():
            module = f"model.layers.{layer}.{name}"
            tensors[f"{module}.weight"] = torch.randn(shape).to(torch.float8_e4m3fn)
            tensors[f"{module}.weight_scale"] = torch.tensor(0.02)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.ones(64)
        tensors[f"model.layers.{layer}.self_attn.k_scale"] = torch.tensor(0.1)
    save_file(tensors, tmp_path / "model.safetensors")
    plan = PLAN | {"quantization_config": {"quant_method": "fp8", "activation_scheme": "dynamic"}}
    (tmp_path / "config.json").write_text(json.dumps(plan))
    return tmp_path


@pytest.fixture
def stranger(tmp_path):
    """A GGUF file of an architecture that nobody has."""
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "oddity")
    matrix = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    for layer in range(2):
        for kind in (gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0):
            data = gguf.quants.quantize(matrix, kind)
            writer.add_tensor(f"blk.{layer}.{kind.name}.weight", data, raw_dtype=kind)
    writer.add_tensor("conv.weight", np.ones((4, 3, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "odd.gguf"


def inspected(path, *, verify=False, **options):
    config = EngineConfig(model=str(path), device="cpu", max_num_seqs=1, **options)
    return facts.inspect_checkpoint(path, config, (lambda done, total: None) if verify else None)


def kind_of(found, name):
    (kind,) = [kind for kind in found.kinds if kind.name == name]
    return kind


def test_facts_of_a_checkpoint(float8):
    found = inspected(float8)
    assert (found.container, found.format, found.model_type) == ("safetensors", "fp8", "llama")
    assert found.architecture == "LlamaForCausalLM"
    projections = 3 * sum(n * k for n, k in SHAPES.values())
    assert found.weights == projections + 96 * 64 + 7 * 64
    assert found.nbytes == projections + 3 * 7 * 4 + 2 * 96 * 64 + 4 * 7 * 64
    assert found.bits == 8 * found.nbytes / found.weights
    down = kind_of(found, "model.layers.*.mlp.down_proj")
    assert (down.count, down.shape, down.stored, down.layout) == (3, [64, 128], "float8_e4m3fn",
                                                                  "Scaled")  # fmt: skip
    assert down.bits == pytest.approx(8 * (64 * 128 + 4) / (64 * 128))
    assert kind_of(found, "model.norm").layout is None
    assert found.problems == [] and found.checks is None


@pytest.mark.parametrize(("dtype", "vector"), [("float16", 32), ("int8", 20), ("int4", 12)])
def test_memory_for_a_token(float8, dtype, vector):
    """16 numbers of 2, 1 or half a byte, and a scale; of keys and values, 2 heads, 3 layers."""
    memory = inspected(float8, kv_cache_dtype=dtype).memory
    assert memory.kv_per_token == vector * 2 * 2 * 3
    assert (memory.context, memory.kv_cache_dtype) == (64, dtype)
    assert memory.kv_tokens >= 64


def test_an_architecture_that_nobody_has(stranger):
    found = inspected(stranger, verify=True)
    assert (found.architecture, found.model_type, found.memory) == ("oddity", None, None)
    assert "oddity" in found.notes[0]
    kind = kind_of(found, "blk.*.Q4_0")
    assert (kind.count, kind.shape, kind.stored, kind.bits) == (2, [64, 256], "Q4_0", 4.5)
    assert len(found.checks) == 5 and found.problems == []


def test_what_does_not_fit_is_a_note(float8):
    found = inspected(float8, max_model_len=1000)
    assert found.memory is None
    assert found.notes == ["max_model_len is 1000, but the model was made for 64 tokens; lower it"]


def test_sound_weights_pass(float8):
    found = inspected(float8, verify=True)
    assert len(found.checks) == 3 * 9 + 2 and found.problems == []
    assert max(check.error for check in found.checks) < 0.02


def test_weights_that_are_not_numbers_are_named(float8):
    tensors = load_file(float8 / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"].view(torch.uint8)[3, :2] = 0x7F
    tensors["model.norm.weight"][5] = torch.inf
    save_file(tensors, float8 / "model.safetensors")
    assert inspected(float8, verify=True).problems == [
        "model.layers.1.mlp.up_proj: 2 of 8192 of its weights are a NaN or an infinity",
        "model.norm: model.norm.weight holds a NaN or an infinity",
    ]


def test_a_scale_that_is_missing_is_named(float8):
    tensors = load_file(float8 / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight_scale"]
    save_file(tensors, float8 / "model.safetensors")
    (problem,) = inspected(float8).problems
    assert "'model.layers.0.mlp.up_proj.weight' is float8_e4m3fn [128, 64] and needs" in problem
    (checked,) = inspected(float8, verify=True).problems
    assert problem in checked


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda y: 1.1 * y, r"the product differs from the reference's by 0\.\d+ of what is typi"),
        (lambda y: y.index_put(ONE, y[ONE] + 4), r"1 of 384 outputs of the product differ"),
        (lambda y: y * torch.nan, r"the product differs from the reference's by nan of what is"),
    ],
)
def test_wrong_kernels_are_found(float8, monkeypatch, spoil, message):
    plain = reference.create(torch.device("cpu"), threads=None, dtype=None)
    wrong = {Dense: lambda *inputs: spoil(plain.any_matmul(*inputs))}
    spoilt = dataclasses.replace(plain, matmul=wrong)
    monkeypatch.setattr(facts, "backend_for", lambda *arguments, **options: spoilt)
    found = inspected(float8, verify=True)
    (problem,) = found.problems
    assert problem.startswith("model.embed_tokens: ")
    assert re.search(message, problem)
    assert kind_of(found, "model.embed_tokens").kernel == "reference Dense"
    assert kind_of(found, "model.layers.*.mlp.up_proj").kernel == "reference"
    assert Scaled not in spoilt.matmul
