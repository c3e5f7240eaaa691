"""Hugging Face directories: the same ids and texts as the libraries that wrote them."""

import builtins
import json

import pytest
import tokenizers
from aphrodite_engine.errors import ModelError
from aphrodite_engine.text.detokenizer import Detokenizer
from aphrodite_engine.text.hf_tokenizer import directory_tokenizer
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

CORPUS = ["the quick brown fox", "über den Wolken", "the cat, the hat", "日本語 👍"] * 5
TEXTS = ["the fox", " über  👍 the\n", "日本語!", "", "<|end|>the", "x<|begin|> y", "\u0416"]


def byte_level():
    encoder = tokenizers.Tokenizer(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin|>", "<|end|>", "<|turn|>"]
    trainer = BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    encoder.train_from_iterator(CORPUS, trainer)
    return encoder


def sentencepiece():
    special = ["<|begin|>", "<|end|>", "<|turn|>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"thefoxün", "th"]
    pieces += ["the", "\u2581the"]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the")]
    vocab = {piece: token for token, piece in enumerate(pieces)}
    encoder = tokenizers.Tokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True))
    encoder.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    replace, strip = decoders.Replace("\u2581", " "), decoders.Strip(" ", 1, 0)
    encoder.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), strip])
    encoder.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    return encoder


@pytest.fixture(params=[byte_level, sentencepiece])
def directory(request, tmp_path):
    encoder = request.param()
    encoder.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    encoder.save(str(tmp_path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": {"__type": "AddedToken", "content": "<|end|>", "special": True},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    return tmp_path


@pytest.mark.parametrize("text", TEXTS)
def test_ids_and_texts_equal_transformers(directory, text):
    ours = directory_tokenizer(directory)
    theirs = PreTrainedTokenizerFast.from_pretrained(directory)
    for add_special in (True, False):
        ids = ours.encode(text, add_special=add_special)
        assert ids == theirs.encode(text, add_special_tokens=add_special)
    for skip in (True, False):
        want = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special=skip) == want
        detokenizer = Detokenizer(ours, skip_special_tokens=skip)
        pieces = [*(detokenizer.feed(token) for token in ids), detokenizer.flush()]
        assert "".join(pieces) == want


def test_roles(directory):
    tokenizer = directory_tokenizer(directory)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (0, 1, True)
    assert tokenizer.end_ids == {1, 2}
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.special.unknown is None
    assert tokenizer.encode("<|end|>", add_special=False) == [1]
    assert 1 not in tokenizer.encode("<|end|>", parse_special=False)


@pytest.mark.parametrize("ends", ["4", {}, {"a": 1}, "", [1, "2"], [None], True, 1.5])
def test_ends_are_ids(directory, ends):
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    with pytest.raises(ModelError, match=r"generation_config\.json: eos_token_id should be .* ids"):
        directory_tokenizer(directory)


def test_the_special_tokens_map_names_what_the_config_does_not(directory):
    (directory / "tokenizer_config.json").unlink()
    (directory / "special_tokens_map.json").write_text('{"eos_token": "<|turn|>"}')
    (directory / "generation_config.json").write_text('{"eos_token_id": 1}')
    tokenizer = directory_tokenizer(directory)
    assert tokenizer.eos_id == 2
    assert tokenizer.end_ids == {1, 2}


def test_damaged_files(directory):
    (directory / "generation_config.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"generation_config.json should hold a JSON object"):
        directory_tokenizer(directory)
    (directory / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ModelError, match=r"tokenizer.json is no tokenizer"):
        directory_tokenizer(directory)


def test_an_unknown_decoder(tmp_path):
    encoder = tokenizers.Tokenizer(models.WordPiece({"a": 0}, unk_token="a"))
    encoder.decoder = decoders.WordPiece()
    encoder.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match=r"does not know \(WordPiece\)"):
        directory_tokenizer(tmp_path)


def test_older_formats_are_converted(tmp_path):
    encoder = byte_level()
    encoder.model.save(str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert not (tmp_path / "tokenizer.json").exists()
    tokenizer = directory_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("the fox 👍")) == "the fox 👍"
    assert tokenizer.encode("the fox") == encoder.encode("the fox").ids


def test_without_transformers_the_cure_is_named(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "transformers":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ModelError, match="pip install transformers"):
        directory_tokenizer(tmp_path)


def test_a_damaged_older_format(tmp_path):
    (tmp_path / "vocab.json").write_text("{")
    (tmp_path / "merges.txt").write_text("x")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    with pytest.raises(ModelError, match="cannot be converted: "):
        directory_tokenizer(tmp_path)


def test_a_directory_without_a_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match=r"has neither tokenizer\.json nor"):
        directory_tokenizer(tmp_path)


def test_line_breaks(directory):
    """The tokens of which a text of line breaks alone is made."""
    tokenizer = directory_tokenizer(directory)
    tokens = tokenizer.encode("\n\r\n", add_special=False)
    spaces = set(tokenizer.encode(" ", add_special=False))  # before each text, to some tokenizers
    assert tokenizer.line_breaks == set(tokens) - spaces
    assert all(not tokenizer.token_text(token).strip("\r\n") for token in tokenizer.line_breaks)
