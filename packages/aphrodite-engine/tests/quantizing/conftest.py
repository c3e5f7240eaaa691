"""A tiny random llama with a tokenizer of bytes, as a Hugging Face directory."""

import json

import pytest
import torch
from aphrodite_engine.text.vocabulary import BYTE_ALPHABET
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONFIG = {
    "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "attention_bias": True, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The directory, and the model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **CONFIG)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.08)
    model.save_pretrained(path)
    encoder = Tokenizer(models.BPE(vocab=dict(BYTE_ALPHABET), merges=[]))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    encoder.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "~"}))
    (path / "text.txt").write_text("".join(f"The number {i} follows {i - 1}. " for i in range(60)))
    return path, model
