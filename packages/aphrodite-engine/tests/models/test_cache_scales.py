"""Scales of an fp8 KV cache in a checkpoint: taken where they are for, else left."""

import json

import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.fit import fit_model
from aphrodite_engine.loading.model import open_model
from safetensors.torch import load_file, save_file

CONFIG = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
SCALES = {
    "0.self_attn.k_scale": 0.5, "0.self_attn.v_scale": 0.25,
    "1.self_attn.attn.v_scale": 2.0, "1.self_attn.q_scale": 3.0,
}  # fmt: skip
SCHEME = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False}


@pytest.fixture
def checkpoint(make_checkpoint):
    """A model whose first layer has scales for keys and values, the second for values."""
    from transformers import AutoConfig

    path, _ = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    tensors = load_file(path / "model.safetensors")
    tensors |= {f"model.layers.{name}": torch.tensor(scale) for name, scale in SCALES.items()}
    save_file(tensors, path / "model.safetensors")
    return path


def state(path, **fields):
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | fields))


def fitted(path, backend, **options):
    said = []
    config = EngineConfig(model="m", max_model_len=32, max_num_seqs=1, **options)
    return fit_model(open_model(path), backend, config, said.append), said


@pytest.mark.parametrize("name", ["fp8", "fp8_e4m3"])
def test_an_fp8_cache_takes_them(checkpoint, native, name):
    model, _ = fitted(checkpoint, native, kv_cache_dtype=name)
    scales = [(cache.key_fixed, cache.value_fixed) for cache in model.memory.caches]
    assert scales == [(0.5, 0.25), (None, 2.0)]


@pytest.mark.parametrize("name", ["auto", "bf16", "fp8_e5m2", "int8", "int4"])
def test_other_caches_leave_them_and_say_so(checkpoint, backend, name):
    model, said = fitted(checkpoint, backend, kv_cache_dtype=name)
    assert all(cache.key_fixed is None for cache in model.memory.caches)
    dtype = model.config.kv_cache_dtype
    expected = f"the checkpoint's scales for a KV cache of fp8_e4m3 are not used: it is {dtype}"
    assert expected in said


def test_a_checkpoint_made_for_an_fp8_cache_gets_one(checkpoint, backend):
    stated = {"quant_method": "compressed-tensors", "config_groups": {}, "kv_cache_scheme": SCHEME}
    state(checkpoint, quantization_config=stated)
    model, _ = fitted(checkpoint, backend)
    assert model.config.kv_cache_dtype == "fp8_e4m3"
    assert model.memory.caches[0].key_fixed == 0.5


def test_a_cache_that_there_is_not_is_refused_unless_another_is_chosen(checkpoint, backend):
    (checkpoint / "hf_quant_config.json").write_text(
        json.dumps({"quantization": {"kv_cache_quant_algo": "NVFP4"}})
    )
    with pytest.raises(ConfigError, match=r"asks for a KV cache of nvfp4, which there is not; cho"):
        fitted(checkpoint, backend)
    assert fitted(checkpoint, backend, kv_cache_dtype="int8")[0].config.kv_cache_dtype == "int8"
