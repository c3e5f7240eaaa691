"""Hugging Face directories become GGUF files that run as the model does in transformers."""

import json

import gguf
import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.errors import ModelError
from aphrodite_engine.loading.text import load_text
from aphrodite_engine.quantizing.job import Job
from aphrodite_engine.quantizing.run import quantize_model
from aphrodite_engine.text.vocabulary import BYTE_ALPHABET
from aphrodite_quant import open_checkpoint
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

BASE = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
GEMMA = {
    "num_hidden_layers": 7, "head_dim": 32, "sliding_window": 6, "query_pre_attn_scalar": 32,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
VARIANTS = {
    "llama": ("llama", {}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama yarn tied": ("llama", {"rope_parameters": YARN, "tie_word_embeddings": True}),
    "llama factors": ("llama", {"rope_parameters": LLAMA3}),
    "mistral": ("mistral", {"sliding_window": 7, "head_dim": 24}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", GEMMA),
}
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = ["the three <end> things, 12 345\n\n  x", "  über 你好 <think>the</think>", ""]


def byte_level():
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    vocabulary = {**BYTE_ALPHABET, "th": 256, "the": 257, "Ġthe": 258}
    encoder = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    encoder.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    encoder.decoder = decoders.ByteLevel()
    return encoder


def sentencepiece():
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁theinrx"]
    pieces += ["th", "in", "the", "▁the", "▁x"]
    merges = [("t", "h"), ("i", "n"), ("th", "e"), ("▁", "the"), ("▁", "x")]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    model = models.BPE(
        vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"
    )
    encoder = Tokenizer(model)
    encoder.normalizer = normalizers.Replace(" ", "▁")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    encoder.decoder = decoders.Sequence(steps)
    return encoder


def save_tokenizer(path, encoder):
    encoder.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    encoder.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    encoder.save(str(path / "tokenizer.json"))
    named = {"eos_token": "<end>", "chat_template": "{{ messages[0].content }}"}
    named |= {"unk_token": "<unk>"} if encoder.token_to_id("<unk>") is not None else {}
    (path / "tokenizer_config.json").write_text(json.dumps(named))


@pytest.fixture
def written(make_checkpoint):
    """Function (model type, options, encoder) -> directory, file, the model in transformers."""
    from transformers import AutoConfig

    def make(model_type, options, encoder):
        path, oracle = make_checkpoint(AutoConfig.for_model(model_type, **(BASE | options)))
        save_tokenizer(path, encoder)
        file = path / "written.gguf"
        job = Job(
            model=str(path), format="gguf:f32", output=str(file), device="cpu", evaluate=False
        )
        quantize_model(job, lambda label, done, total: None)
        return path, file, oracle

    return make


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_agree(variant, written, decoder):
    _, file, oracle = written(*VARIANTS[variant], byte_level())
    prompt = torch.randint(320, (30,)).tolist()
    with torch.no_grad():
        expected = oracle(torch.tensor([prompt])).logits[0]
    ours = decoder(file)
    assert ours.loaded.source.model_type == VARIANTS[variant][0]
    ours.start(0, prompt)
    (found,) = ours.step((0, 0, 30))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("encoder", "family"), [(byte_level(), "gpt2"), (sentencepiece(), "llama")]
)
def test_the_tokenizer_comes_along(encoder, family, written):
    path, file, _ = written("llama", {}, encoder)
    before, after = (
        load_text(EngineConfig(model=str(place)), lambda line: None) for place in (path, file)
    )
    for text in TEXTS:
        wanted = before.tokenizer.encode(text, add_special=True, parse_special=True)
        assert after.tokenizer.encode(text, add_special=True, parse_special=True) == wanted
        assert after.tokenizer.decode(wanted) == before.tokenizer.decode(wanted)
    assert after.tokenizer.special == before.tokenizer.special
    assert after.template.source == before.template.source
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.ggml.model"].contents() == family
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokens = fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == 320 and tokens[-1] == "[PAD319]" and kinds[-1] == 5
    assert kinds[tokens.index("<end>")] == 3 and kinds[tokens.index("<think>")] == 4
    if family == "gpt2":
        assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    else:
        assert kinds[:3] == [2, 6, 6]


def test_metadata_are_of_the_types_that_others_expect(written):
    fields = gguf.GGUFReader(written("llama", {}, byte_level())[1]).fields
    kinds = gguf.GGUFValueType
    wanted = {
        "llama.context_length": kinds.UINT32, "llama.block_count": kinds.UINT32,
        "llama.rope.freq_base": kinds.FLOAT32, "tokenizer.ggml.eos_token_id": kinds.UINT32,
        "llama.attention.layer_norm_rms_epsilon": kinds.FLOAT32, "general.file_type": kinds.UINT32,
        "tokenizer.ggml.add_bos_token": kinds.BOOL,
    }  # fmt: skip
    assert {key: fields[key].types[0] for key in wanted} == wanted


@pytest.mark.parametrize(
    ("model_type", "options", "message"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
         "GGUF cannot say that windows"),
        ("gemma3_text", GEMMA | {"query_pre_attn_scalar": 64}, "cannot say that query_scalar"),
    ],
)  # fmt: skip
def test_models_that_gguf_cannot_say_are_refused(model_type, options, message, written):
    with pytest.raises(ModelError, match=message):
        written(model_type, options, byte_level())


def test_tokenizers_that_gguf_cannot_say_are_refused(written):
    odd = byte_level()
    odd.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("e", "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    )
    with pytest.raises(ModelError, match="in a way that GGUF has no name for; known are chatglm"):
        written("llama", {}, odd)
    words = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    words.decoder = decoders.ByteLevel()
    with pytest.raises(ModelError, match="of type WordLevel cannot be written as GGUF"):
        written("llama", {}, words)


def test_a_written_file_has_the_recipes_types(written, tmp_path):
    path, _, _ = written("llama", {}, byte_level())
    job = Job(
        model=str(path), format="gguf:q8_0", output=str(path / "eight.gguf"), device="cpu",
        evaluate=False,
    )  # fmt: skip
    quantize_model(job, lambda label, done, total: None)
    store = open_checkpoint(path / "eight.gguf").store
    kinds = {str(store.info(name).type) for name in store.names()}
    assert kinds == {"8", "torch.float32"}
