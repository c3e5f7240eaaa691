"""Pieces of text, joined, are the text decoded whole."""

import json
from pathlib import Path

import pytest
from aphrodite_engine.text.detokenizer import Detokenizer
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data" / "tokenizers"
TOKENIZERS = {
    name: gguf_tokenizer(json.loads((DATA / f"{name}.json").read_text())["metadata"])
    for name in ("smollm2", "gpt-2", "gemma", "llama-spm")
}

# Two characters mean something else.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\ufffd")


def pieces(tokenizer, tokens, prompt=(), **options):
    detokenizer = Detokenizer(tokenizer, prompt, **options)
    return [*(detokenizer.feed(token) for token in tokens), detokenizer.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=80, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_pieces_join_to_the_whole(name, data, skip):
    tokenizer = TOKENIZERS[name]
    tokens = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    got = pieces(tokenizer, tokens, skip_special_tokens=skip)
    assert "".join(got) == tokenizer.decode(tokens, skip_special=skip)


@pytest.mark.parametrize("name", sorted(set(TOKENIZERS) - {"smollm2"}))  # lacks some bytes
@settings(max_examples=50, deadline=None)
@given(text=st.text(CHARACTERS, max_size=20))
def test_text_comes_back_and_characters_come_whole(name, text):
    tokenizer = TOKENIZERS[name]
    tokens = tokenizer.encode(text, add_special=False, parse_special=False)
    got = pieces(tokenizer, tokens)
    assert "".join(got) == text
    assert not any("\ufffd" in piece for piece in got)


def test_an_unfinished_character_is_held_back():
    tokenizer = TOKENIZERS["smollm2"]
    tokens = tokenizer.encode("👍!")
    got = pieces(tokenizer, tokens)
    assert len(tokens) > 2
    assert got[0] == ""
    assert "".join(got) == "👍!"
    assert pieces(tokenizer, tokens[:1])[-1] == "\ufffd"


def test_a_character_that_the_prompt_began_is_finished():
    tokenizer = TOKENIZERS["smollm2"]
    tokens = tokenizer.encode("👍!")
    for cut in range(1, len(tokens) - 1):
        assert "".join(pieces(tokenizer, tokens[cut:], prompt=tokens[:cut])) == "👍!"


def test_the_leading_space_goes_only_at_the_very_start():
    tokenizer = TOKENIZERS["llama-spm"]
    tokens = tokenizer.encode("Hello", add_special=False)
    assert "".join(pieces(tokenizer, tokens)) == "Hello"
    assert "".join(pieces(tokenizer, tokens, prompt=[tokenizer.bos_id])) == "Hello"
    assert "".join(pieces(tokenizer, tokens, prompt=tokens)) == " Hello"


def test_control_tokens_shown_are_spaced_if_asked():
    tokenizer = TOKENIZERS["smollm2"]
    end = tokenizer.eos_id
    name = tokenizer.token_text(end)
    tokens = [end, end, *tokenizer.encode("x"), end]
    shown = {"skip_special_tokens": False}
    assert "".join(pieces(tokenizer, tokens, **shown)) == f"{name}{name}x{name}"
    spaced = pieces(tokenizer, tokens, spaces_between_special_tokens=True, **shown)
    assert "".join(spaced) == f"{name} {name}x{name}"
    assert "".join(pieces(tokenizer, tokens, spaces_between_special_tokens=True)) == "x"


def test_padding_ids_have_no_text():
    tokenizer = TOKENIZERS["smollm2"]
    assert pieces(tokenizer, [tokenizer.vocab_size + 3]) == ["", ""]
