"""The same tiny checkpoints, converted to GGUF as its usual converter does, give the same logits.

Names come from the `gguf` package's own tables.
"""

import gguf
import numpy as np
import pytest
import torch
from aphrodite_engine.errors import ModelError
from aphrodite_engine.loading.model import load_model, open_model
from aphrodite_quant.errors import QuantError

BASE = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
GEMMA = {
    "num_hidden_layers": 7, "head_dim": 32, "sliding_window": 6, "query_pre_attn_scalar": 32,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip
VARIANTS = {
    "llama": ("llama", "llama", {}),
    "llama biases": ("llama", "llama", {"attention_bias": True, "mlp_bias": True}),
    "llama yarn tied": ("llama", "llama", {"rope_parameters": YARN, "tie_word_embeddings": True}),
    "llama factors": ("llama", "llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", "llama", {"sliding_window": 7, "head_dim": 24}),
    "qwen2": ("qwen2", "qwen2", {}),
    "qwen3": ("qwen3", "qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", "gemma3", GEMMA),
}


def convert(path, config, model, name, wide=np.float32):
    """What a converter writes: permuted q and k for llama, one added to gemma's norms."""
    writer = gguf.GGUFWriter(path, name)
    write_metadata(writer, config, name)
    architecture = next(a for a, text in gguf.MODEL_ARCH_NAMES.items() if text == name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    state = model.state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    for key, tensor in state.items():
        values = tensor.numpy()
        if name == "llama" and ("q_proj" in key or "k_proj" in key):
            values = interleave(values, config.head_dim)
        if name == "gemma3" and "norm" in key:
            values = values + 1
        kind = wide if values.ndim == 2 else np.float32
        writer.add_tensor(names.get_name(key, (".weight", ".bias")), values.astype(kind))
    if config.model_type == "llama" and config.rope_parameters["rope_type"] == "llama3":
        default = 500.0 ** -(np.arange(0, 16, 2) / 16)
        writer.add_tensor(
            "rope_freqs.weight",
            (default / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleave(values, head_dim):
    halves = values.reshape(-1, 2, head_dim // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def write_metadata(writer, config, name):
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.model_type in ("mistral", "gemma3_text"):
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_agree(variant, make_checkpoint, decoder):
    from transformers import AutoConfig

    model_type, name, options = VARIANTS[variant]
    config = AutoConfig.for_model(model_type, **(BASE | options))
    path, oracle = make_checkpoint(config)
    file = path / "model.gguf"
    convert(file, config, oracle, name)
    prompt = torch.randint(96, (30,)).tolist()
    with torch.no_grad():
        expected = oracle(torch.tensor([prompt])).logits[0]
    ours = decoder(file)
    assert ours.loaded.source.model_type == model_type
    ours.start(0, prompt)
    (found,) = ours.step((0, 0, 30))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.fixture
def llama_file(make_checkpoint):
    from transformers import AutoConfig

    config = AutoConfig.for_model("llama", **BASE)
    path, oracle = make_checkpoint(config)
    return path / "model.gguf", config, oracle


def test_half_precision_weights(llama_file, decoder):
    file, config, oracle = llama_file
    convert(file, config, oracle, "llama", np.float16)
    with torch.no_grad():
        for parameter in oracle.parameters():
            if parameter.ndim == 2:
                parameter.copy_(parameter.half())
        expected = oracle(torch.tensor([[5, 6, 7]])).logits[0]
    ours = decoder(file)
    ours.start(0, [5, 6, 7])
    torch.testing.assert_close(ours.step((0, 0, 3))[0], expected, atol=1e-4, rtol=0)


def rewrite(file, change):
    """Write the file again, with `change(key, value)` of every metadata value (None: leave out)."""
    reader = gguf.GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(
        file.with_name("changed.gguf"), change("general.architecture", architecture)
    )
    for key, value in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            changed = change(key, value.contents())
            if changed is not None:
                writer.add_key_value(key, changed, value.types[0])
    for tensor in reader.tensors:
        if change(tensor.name, True) is not None:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.with_name("changed.gguf")


CHANGES = {
    "architecture": (
        lambda key, value: "grok" if key == "general.architecture" else value,
        ModelError, "GGUF architecture 'grok' is not supported; supported are gemma3, llama",
    ),
    "missing key": (
        lambda key, value: None if key == "llama.context_length" else value,
        ModelError, "the key max_position_embeddings is missing",
    ),
    "no layers": (
        lambda key, value: 0 if key == "llama.block_count" else value,
        ModelError, "num_hidden_layers is",
    ),
    "missing tensor": (
        lambda key, value: None if key == "blk.1.ffn_up.weight" else value,
        QuantError, "blk.1.ffn_up.weight",
    ),
    "spare tensors": (
        lambda key, value: 2 if key == "llama.block_count" else value,
        ModelError, "the model has no place for the tensors blk.2.",
    ),
    "wrong shape": (
        lambda key, value: 128 if key == "llama.feed_forward_length" else value,
        QuantError, "[96, 64]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_fit_is_named(change, llama_file, backend):
    file, config, oracle = llama_file
    convert(file, config, oracle, "llama")
    apply, kind, message = CHANGES[change]
    changed = rewrite(file, apply)
    with pytest.raises(kind) as caught:
        load_model(open_model(changed), backend, 64, lambda read, total: None)
    assert message in str(caught.value)
