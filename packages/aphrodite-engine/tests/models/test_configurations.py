"""Configurations that are wrong are refused by the name of their key, before weights are read."""

import json

import pytest
from aphrodite_engine.errors import ModelError
from aphrodite_engine.keys import Keys
from aphrodite_engine.loading.model import open_model
from aphrodite_engine.models import find_gguf, find_model, model_types
from safetensors.torch import save_file
from torch import zeros

LLAMA = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 64, "intermediate_size": 112,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
GEMMA = LLAMA | {"model_type": "gemma3_text", "head_dim": 16}

REFUSALS = {
    "model type 'rwkv' is not supported; supported are gemma3_text, llama, mistral": {
        "model_type": "rwkv"
    },
    "model type 'llama.py' is not supported": {"model_type": "llama.py"},
    "config.json: the key model_type is missing": {"model_type": None},
    "the key vocab_size is missing": {"vocab_size": None},
    "hidden_size is 64.5, not a whole number": {"hidden_size": 64.5},
    "hidden_size is True, not a whole number": {"hidden_size": True},
    "num_hidden_layers is 1000000000, not a whole number from 1 to 1000": {
        "num_hidden_layers": 10**9
    },
    "num_key_value_heads is 3, not a divisor of num_attention_heads, 4": {"num_key_value_heads": 3},
    "hidden_act is 'relu', not one of silu": {"hidden_act": "relu"},
    "tie_word_embeddings is 'yes', not true or false": {"tie_word_embeddings": "yes"},
    "not a number of at most 308 digits": {"rms_norm_eps": 10**400},
    "attn_logit_softcapping is 50.0, not null": GEMMA | {"attn_logit_softcapping": 50.0},
    "use_bidirectional_attention is True, not false": GEMMA | {"use_bidirectional_attention": True},
}


@pytest.mark.parametrize("message", REFUSALS)
def test_refusals_name_the_key(message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | REFUSALS[message]))
    save_file({"a": zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        open_model(tmp_path)
    assert message in str(caught.value)


def test_every_file_is_a_model():
    for model_type in model_types():
        architecture = find_model(model_type)
        if architecture.gguf is not None:
            assert find_gguf(architecture.gguf.architecture) == (model_type, architecture)


def test_absent_keys_have_the_defaults_of_transformers():
    config = find_model("llama").read(Keys(LLAMA, "c"))
    assert not config.tied
    assert config.kv_specs[0].head_dim == 16
    assert find_model("gemma3_text").read(Keys(GEMMA, "c")).tied
