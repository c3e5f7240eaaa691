"""Banned texts: never shown, whatever tokens spell them and however the news are cut."""

import hashlib
import json
from pathlib import Path

import pytest
from aphrodite_engine.errors import RequestError
from aphrodite_engine.outputs import RequestOutput
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stages.banned_strings import BannedStrings
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.text.automaton import Release, TextAutomaton
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.phrases import Rewind
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(__file__).parent / "data" / "tokenizers"
TOKENIZER = gguf_tokenizer(json.loads((DATA / "smollm2.json").read_text())["metadata"])
END = TOKENIZER.eos_id
PROMPT = TOKENIZER.encode("the")
TOKENS = [
    TOKENIZER.encode(text) for text in ("the", " the", "a", "A", "ab", "b", " ", "x", "é", "👍")
]
CHOICES = sorted({token for each in TOKENS for token in each})


class Model:
    """A completion as the engine sees it: a token follows from those before it."""

    def __init__(self, seed, choices, limit):
        self.seed = seed
        self.choices = choices
        self.limit = limit
        self.output = []
        self.rewinds = 0
        self.place, self.banned = 0, []

    def draw(self):
        first = hashlib.blake2b(f"{self.seed}{self.output}".encode()).digest()[0]
        order = [
            self.choices[(first + step) % len(self.choices)] for step in range(len(self.choices))
        ]
        allowed = [
            token for token in order if self.place != len(self.output) or token not in self.banned
        ]
        self.output.append((allowed or order)[0])
        return self.output[-1]

    def take_back(self, rewind):
        assert rewind.kept < len(self.output)
        del self.output[rewind.kept :]
        self.rewinds += 1
        self.place, self.banned = rewind.kept, rewind.banned

    def news(self, count):
        tokens = [self.draw() for _ in range(min(count, self.limit - len(self.output)))]
        logprobs = [TokenLogprobs(token, -1.0, 1, []) for token in tokens]
        over = len(self.output) == self.limit
        return RequestOutput(
            id="r",
            choice=0,
            tokens=tokens,
            logprobs=logprobs,
            rewinds=self.rewinds,
            finish_reason="length" if over else None,
        )


def complete(model, cuts, **fields):
    """All news, in portions of `cuts` tokens; each rewind is told one portion late."""
    stop = fields.pop("stop", ())
    include = fields.pop("include", False)
    params = SamplingParams(
        stop=tuple(stop), include_stop_str_in_output=include, stages=stages_from(fields)
    )
    automaton = TextAutomaton(TOKENIZER, params, PROMPT)
    told = []
    number = 0
    while not automaton.finished:
        told.append(automaton.feed(model.news(cuts[number % len(cuts)])))
        number += 1
        back = automaton.demand
        if not isinstance(back, Rewind):
            continue
        if len(model.output) < model.limit:  # news of a text that is no more
            stale = automaton.feed(model.news(1))
            assert (stale.text, stale.tokens, stale.finish_reason) == ("", [], None)
            assert automaton.demand is None
        model.take_back(back)
    return told


def text_of(told):
    return "".join(news.text for news in told)


PHRASES = st.lists(
    st.sampled_from(["the", "theA", "a", "b x", "ab", "é", "👍é", "aa", " ", "x the a", "bb"]),
    max_size=4,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    few=st.sets(st.sampled_from(CHOICES), min_size=3),
    phrases=PHRASES,
    sensitive=st.booleans(),
    stop=st.lists(st.sampled_from(["xx", "the", "a ", "bé"]), max_size=2),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    include=st.booleans(),
)
def test_text_is_the_same_however_it_is_cut(seed, few, phrases, sensitive, stop, cuts, include):
    fields = {"banned_strings": phrases, "banned_strings_case_sensitive": sensitive}
    fields |= {"stop": stop, "include": include}
    choices = sorted(few)
    streamed = complete(Model(seed, choices, 24), cuts, **fields)
    whole = complete(Model(seed, choices, 24), [1], **fields)
    text = text_of(whole)
    assert text_of(streamed) == text
    tokens = [token for news in streamed for token in news.tokens]
    assert tokens == [token for news in whole for token in news.tokens]
    assert tokens == [entry.token for news in streamed for entry in news.logprobs]
    if streamed[-1].finish_reason == "length":
        assert len(tokens) == 24
        if not TOKENIZER.decode(tokens).endswith("\ufffd"):
            assert TOKENIZER.decode(tokens) == text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), PHRASES, st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_nothing_banned_is_ever_shown(seed, phrases, cuts):
    # "x" alone is in no banned text without a letter of these: something is always left.
    phrases = [phrase for phrase in phrases if phrase.strip("x ")]
    shown = ""
    for news in complete(Model(seed, CHOICES, 24), cuts, banned_strings=phrases):
        shown += news.text
        assert not [phrase for phrase in phrases if phrase.casefold() in shown.casefold()]


def test_the_token_in_which_it_began_is_banned():
    the, space_the, x = (TOKENIZER.encode(text)[0] for text in ("the", " the", "x"))
    automaton = TextAutomaton(TOKENIZER, SamplingParams(stages=(BannedStrings(("e TH",)),)), PROMPT)

    def feed(*tokens, rewinds=0, reason=None):
        return automaton.feed(
            RequestOutput(
                id="r", choice=0, tokens=list(tokens), rewinds=rewinds, finish_reason=reason
            )
        )

    assert feed(x, the).text == "x", "the whole token is held"
    assert feed(space_the, x).text == ""
    assert (automaton.demand.kept, automaton.demand.banned) == (1, [the])
    assert feed(x, x, reason="length").finish_reason is None, "out of date"
    assert automaton.demand is None
    assert feed(x, the, rewinds=1).text == "x"
    assert feed(space_the, rewinds=1).text == ""
    assert (automaton.demand.kept, automaton.demand.banned) == (2, [the])
    last = feed(x, reason="length", rewinds=2)
    assert (last.text, last.finish_reason, automaton.demand) == ("x", "length", Release())


def test_bans_at_a_place_add_up_and_go_with_the_text_before_it():
    a, b = (TOKENIZER.encode(text)[0] for text in ("a", "b"))
    x = TOKENIZER.encode("x")[0]
    stages = stages_from({"banned_strings": ["a", "b", "xxx"]})
    automaton = TextAutomaton(TOKENIZER, SamplingParams(stages=stages), PROMPT)
    found = []
    for tokens in ([x, a], [b], [x, a], [x]):
        automaton.feed(RequestOutput(id="r", choice=0, tokens=tokens, rewinds=len(found)))
        back = automaton.demand
        if back is not None:
            found.append((back.kept, back.banned))
    assert found == [(1, [a]), (1, [a, b]), (2, [a]), (0, [x])]


def test_what_is_banned_and_comes_nevertheless_is_let_through():
    told = complete(Model(5, CHOICES[:1], 4), [1], banned_strings=[TOKENIZER.decode(CHOICES[:1])])
    assert text_of(told) == TOKENIZER.decode(CHOICES[:1] * 4)


def test_a_stop_string_that_is_complete_first_wins():
    x, the = TOKENIZER.encode("x")[0], TOKENIZER.encode(" the")[0]
    for include, expected in ((False, "x"), (True, None)):
        params = SamplingParams(
            stop=(" t",),
            include_stop_str_in_output=include,
            stages=stages_from({"banned_strings": ["x t"]}),
        )
        automaton = TextAutomaton(TOKENIZER, params, PROMPT)
        news = automaton.feed(RequestOutput(id="r", choice=0, tokens=[x, the]))
        assert (news.text or None, news.finish_reason) == (expected, "stop" if expected else None)
        assert isinstance(automaton.demand, Release if expected else Rewind)


@pytest.mark.parametrize("name", ["banned_strings", "banned_phrases", "banned_tokens"])
def test_wire(name):
    (stage,) = stages_from({name: ["", "a slop"]})
    assert stage == BannedStrings(("", "a slop"))
    assert stages_from({name: [""]}) == stages_from({name: []}) == stages_from({name: ""}) == ()
    for wrong in ([3], "text", [None], {"a": 1}, 7):
        with pytest.raises(RequestError, match=name):
            stages_from({name: wrong})


def test_hundreds_of_long_phrases():
    phrases = [f"phrase number {number} " * 20 for number in range(400)]
    told = complete(Model(3, CHOICES, 24), [3], banned_strings=phrases)
    assert text_of(told) == text_of(complete(Model(3, CHOICES, 24), [3]))
    with pytest.raises(RequestError, match="banned strings have") as caught:
        complete(Model(3, CHOICES, 24), [3], banned_strings=["x" * 300_000])
    assert caught.value.field == "banned_strings"
