"""What the reader sees does not depend on how the engine's news are cut."""

import json
from pathlib import Path

import pytest
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.automaton import Release, TextAutomaton
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data" / "tokenizers"
TOKENIZER = gguf_tokenizer(json.loads((DATA / "smollm2.json").read_text())["metadata"])
END = TOKENIZER.eos_id
PROMPT = TOKENIZER.encode("the")


def scored(token):
    return TokenLogprobs(token, -1.0, 1, [(token, -1.0)])


def run(tokens, chunks=(), reason="length", stop_reason=None, **params):
    """All news of a completion whose tokens arrive cut at `chunks`."""
    automaton = TextAutomaton(TOKENIZER, SamplingParams(**params), PROMPT)
    places = [0, *sorted(cut for cut in chunks if 0 < cut < len(tokens)), len(tokens)]
    news = []
    for number, start in enumerate(places[:-1]):
        part = tokens[start : places[number + 1]]
        last = number == len(places) - 2
        output = RequestOutput(
            id="r",
            choice=3,
            tokens=part,
            logprobs=[scored(token) for token in part],
            finish_reason=reason if last else None,
            stop_reason=stop_reason if last else None,
            cached_tokens=7,
        )
        news.append(automaton.feed(output))
        if automaton.finished:
            break
    assert automaton.finished
    return news


def joined(news):
    return {
        "text": "".join(item.text for item in news),
        "tokens": [token for item in news for token in item.tokens],
        "logprobs": [entry for item in news for entry in item.logprobs],
        "offsets": [offset for item in news for offset in item.offsets],
        "finish_reason": news[-1].finish_reason,
        "stop_reason": news[-1].stop_reason,
    }


WORDS = st.lists(st.sampled_from(["the", " the", "x", "👍", "\n", " is", "é", "<html>", "ab", "e"]))


@settings(max_examples=200, deadline=None)
@given(
    text=WORDS.map("".join),
    stop=st.lists(
        st.sampled_from(["the", " t", "ab", "é\n", "👍x", "html", "exe", "zzz"]), max_size=3
    ),
    chunks=st.sets(st.integers(1, 40)),
    include=st.booleans(),
)
def test_every_chunking_tells_the_same(text, stop, chunks, include):
    tokens = TOKENIZER.encode(text)
    options = {"stop": tuple(stop), "include_stop_str_in_output": include}
    streamed = run(tokens, chunks, **options)
    whole = joined(run(tokens, **options))
    assert joined(streamed) == whole
    ends = [(text.find(s) + len(s), -len(s), s) for s in stop if s in text]
    if ends:
        end, length, string = min(ends)
        assert whole["text"] == (text[:end] if include else text[: end + length])
        assert (whole["finish_reason"], whole["stop_reason"]) == ("stop", string)
    else:
        assert whole["text"] == text
        assert whole["tokens"] == tokens
        assert (whole["finish_reason"], whole["stop_reason"]) == ("length", None)
    for item in streamed:
        assert len(item.tokens) == len(item.offsets) == len(item.logprobs)
    shown = TOKENIZER.decode(whole["tokens"])
    assert shown.startswith(whole["text"].removesuffix("\ufffd"))
    assert [entry.token for entry in whole["logprobs"]] == whole["tokens"]


def test_no_part_of_a_stop_string_is_ever_told():
    tokens = TOKENIZER.encode("x is the the end")
    told = ""
    for item in run(tokens, range(1, 40), stop=(" the the",)):
        told += item.text
        assert not told.endswith((" ", " t", " the"))
    assert told == "x is"


def test_tokens_that_a_stop_string_cuts_off_are_not_told():
    tokens = TOKENIZER.encode("x the")
    assert joined(run(tokens, stop=(" the",)))["tokens"] == tokens[:-1]
    assert joined(run(tokens, stop=("the",)))["tokens"] == tokens
    assert joined(run(tokens, stop=("x the",)))["tokens"] == []


def test_offsets_are_where_tokens_begin_in_the_text():
    text = "the 👍 is x"
    result = joined(run(TOKENIZER.encode(text), range(1, 40)))
    for token, offset in zip(result["tokens"], result["offsets"], strict=True):
        piece = TOKENIZER.token_text(token)
        if "\ufffd" not in piece:
            assert text[offset:].startswith(piece)


def test_held_text_is_told_at_the_end():
    news = run(TOKENIZER.encode("x the"), range(1, 40), stop=(" the end",))
    assert news[-1].text == " the"
    assert joined(news)["text"] == "x the"


@pytest.mark.parametrize(("include", "text"), [(False, "x"), (True, "x the")])
def test_the_text_of_a_stop_token_is_shown_only_if_asked(include, text):
    tokens = TOKENIZER.encode("x the")
    result = joined(
        run(tokens, reason="stop", stop_reason=tokens[-1], include_stop_str_in_output=include)
    )
    assert result["text"] == text
    assert result["tokens"] == tokens
    assert (result["finish_reason"], result["stop_reason"]) == ("stop", tokens[-1])


def test_end_of_text_counts_but_is_not_seen():
    tokens = [*TOKENIZER.encode("x"), END]
    for skip in (True, False):
        result = joined(run(tokens, reason="stop", skip_special_tokens=skip))
        assert (result["text"], result["tokens"]) == ("x", tokens)
    shown = run(tokens, reason="stop", skip_special_tokens=False, include_stop_str_in_output=True)
    assert joined(shown)["text"] == "x" + TOKENIZER.token_text(END)


def test_a_stop_string_in_the_last_text_wins_over_the_engines_reason():
    result = joined(run(TOKENIZER.encode("x the"), reason="length", stop=("the",)))
    assert (result["finish_reason"], result["stop_reason"]) == ("stop", "the")


def test_stop_strings_count_before_min_tokens():
    result = joined(run(TOKENIZER.encode("x the"), stop=("x",), min_tokens=5))
    assert result["stop_reason"] == "x"


def test_an_unfinished_character_at_the_end_reads_as_replacement():
    tokens = TOKENIZER.encode("👍")[:-1]
    result = joined(run(tokens, range(1, 9)))
    assert (result["text"], result["tokens"]) == ("\ufffd", tokens)


def test_news_after_the_end_tell_nothing():
    automaton = TextAutomaton(TOKENIZER, SamplingParams(stop=("x",)), PROMPT)
    news = RequestOutput(id="r", choice=0, tokens=TOKENIZER.encode("x"), cached_tokens=4)
    assert automaton.feed(news).finish_reason == "stop"
    late = automaton.feed(news)
    assert (late.text, late.tokens, late.finish_reason) == ("", [], None)


def test_what_is_not_text_passes_through():
    automaton = TextAutomaton(TOKENIZER, SamplingParams(), PROMPT)
    entry = scored(5)
    output = RequestOutput(id="r", choice=2, tokens=[], prompt_logprobs=[entry], cached_tokens=9)
    told = automaton.feed(output)
    assert (told.choice, told.prompt_logprobs, told.cached_tokens) == (2, [entry], 9)


def test_completions_share_stop_strings_but_not_state():
    first, second = TextAutomaton.each(TOKENIZER, SamplingParams(n=2, stop=("xx",)), PROMPT)
    x = RequestOutput(id="r", choice=0, tokens=TOKENIZER.encode("x"))
    assert first.feed(x).text == ""
    assert second.feed(x).text == ""
    assert first.feed(x).stop_reason == "xx"
    assert not second.finished


@pytest.mark.parametrize(
    ("stop", "reason", "demand"),
    [(("b",), None, Release()), (("b",), "length", None), (("z",), "length", None)],
)
def test_the_engine_is_told_of_an_end_that_it_does_not_know(stop, reason, demand):
    automaton = TextAutomaton(TOKENIZER, SamplingParams(stop=stop), PROMPT)
    tokens = TOKENIZER.encode("ab x")
    news = automaton.feed(RequestOutput(id="r", choice=0, tokens=tokens, finish_reason=reason))
    assert news.finish_reason == ("stop" if stop == ("b",) else "length")
    assert automaton.demand == demand
    automaton.feed(RequestOutput(id="r", choice=0, tokens=tokens))
    assert automaton.demand is None, "told once"
