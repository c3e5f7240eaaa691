"""Vocabularies that are incomplete, damaged or unknown end in one clear sentence."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from aphrodite_engine.errors import ModelError
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.gguf_vocabulary import GgufVocabulary
from aphrodite_engine.text.pre_tokenizer import RULES, pre_tokenizer

DATA = Path(__file__).parent / "data" / "tokenizers"


@pytest.fixture
def metadata():
    return json.loads((DATA / "gpt-2.json").read_text())["metadata"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", None, "no tokenizer.ggml.model"),
        ("model", "bert", "'bert', a family this engine does not have; known: gemma4, gpt2, "),
        ("model", 7, "tokenizer.ggml.model should be str, but holds 7"),
        ("pre", None, "no tokenizer.ggml.pre"),
        ("pre", "nonesuch", "'nonesuch', a pre-tokenizer .* known: chatglm-bpe, "),
        ("tokens", None, "no tokenizer.ggml.tokens"),
        ("tokens", "abc", "tokens should be an array of strings, but holds 'abc'"),
        ("tokens", ["a", 3], "tokens should be an array of strings, but holds 3"),
        ("token_type", [1, 2], r"token_type has 2 entries for \d+ tokens"),
        ("merges", None, "no tokenizer.ggml.merges, which a 'gpt2' vocabulary needs"),
        ("merges", ["ab"], "holds 'ab', which joins no two tokens"),
        ("merges", ["a nonesuch"], "holds 'a nonesuch'"),
        ("eos_token_id", 10**6, r"eos_token_id is 1000000, but the vocabulary has \d+ tokens"),
        ("bos_token_id", "<s>", "bos_token_id should be a token id, but holds '<s>'"),
        ("add_bos_token", 1, "add_bos_token should be bool, but holds 1"),
    ],
)
def test_bad_metadata(metadata, key, value, message):
    metadata[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(ModelError, match=message):
        gguf_tokenizer(metadata)


def test_a_token_that_is_there_twice(metadata):
    metadata["tokenizer.ggml.tokens"][5] = metadata["tokenizer.ggml.tokens"][9]
    with pytest.raises(ModelError, match="twice"):
        gguf_tokenizer(metadata)


def test_scores_are_needed_for_sentencepiece():
    metadata = json.loads((DATA / "llama-spm.json").read_text())["metadata"]
    scores = metadata.pop("tokenizer.ggml.scores")
    with pytest.raises(ModelError, match=r"no tokenizer\.ggml\.scores"):
        gguf_tokenizer(metadata)
    metadata["tokenizer.ggml.scores"] = np.array(scores, dtype=np.float32)
    assert gguf_tokenizer(metadata).encode("Hello")
    metadata["tokenizer.ggml.scores"] = ["high"] * len(scores)
    with pytest.raises(ModelError, match="scores should be an array of float"):
        gguf_tokenizer(metadata)


def test_byte_level_tokens_are_no_sentencepiece(metadata):
    """As auto-round writes the vocabulary of SmolLM2."""
    metadata["tokenizer.ggml.model"] = "llama"
    metadata["tokenizer.ggml.scores"] = [-1000.0] * len(metadata["tokenizer.ggml.tokens"])
    with pytest.raises(ModelError, match=r"begin with Ġ, as in 'gpt2'.*--tokenizer PATH"):
        gguf_tokenizer(metadata)


def test_unigram_takes_the_likeliest_pieces():
    tokens = ["<unk>", "</s>", "\u2581", "a", "b", "\u2581ab", "ab", "<0x41>"]
    metadata = {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0, 0.0, -2.0, -3.0, -3.0, -4.0, -4.5, 0.0],
        "tokenizer.ggml.token_type": [2, 3, 1, 1, 1, 1, 1, 1],
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
    }
    tokenizer = gguf_tokenizer(metadata)
    pieces = [tokens[token] for token in tokenizer.encode(" abab   ab ")]
    assert pieces == ["\u2581ab", "ab", "\u2581ab", "</s>"]
    assert tokenizer.decode(tokenizer.encode("abab ab")) == "abab ab"
    del metadata["tokenizer.ggml.unknown_token_id"]
    with pytest.raises(ModelError, match=r"no tokenizer\.ggml\.unknown_token_id"):
        gguf_tokenizer(metadata)


@pytest.mark.parametrize("name", sorted(RULES))
def test_every_rule_keeps_every_character(name):
    text = "It's 12345 Ångström/Straße  \n\n x_y\t你好かな 한 !?) ǅ \u2028 "
    words = pre_tokenizer(RULES[name]).pre_tokenize_str(text)
    spans = [span for _, span in words]
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(left[1] == right[0] for left, right in pairwise(spans))


def test_capitals_part_words_in_tekken():
    words = [word for word, _ in pre_tokenizer(RULES["tekken"]).pre_tokenize_str("camelCase ABCd")]
    assert words == ["camel", "Case", "ĠABCd"]


def test_tokens_that_end_a_generation():
    def ends(names, **metadata):
        kinds = [1 if name == "a" or name.startswith("~") else 3 for name in names]
        keys = {"model": "gpt2", "tokens": [n.lstrip("~") for n in names], "token_type": kinds}
        keys |= metadata
        read = GgufVocabulary.read({f"tokenizer.ggml.{key}": keys[key] for key in keys})
        return read.ends

    assert ends(["a", "<|im_end|>", "<|im_start|>"]) == {1}
    assert ends(["a", "<|im_end|>", "x"], eos_token_id=2) == {1, 2}
    assert ends(["a", "~</s>", "x"], eot_token_id=0, eom_token_id=2) == {0, 2}
    assert ends(["<|end|>", "x"]) == {0}
    assert ends(["<|end|>", "<|return|>", "<|call|>"]) == {1, 2}
