"""Stages that read the history, and bans: their edges, their texts, and what wire fields make."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling import history
from aphrodite_engine.sampling.breakers import find_breakers
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.history import all_repeats
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stages.allowed_token_ids import AllowedTokenIds
from aphrodite_engine.sampling.stages.bad_words import BadWords
from aphrodite_engine.sampling.stages.ban_eos_token import BanEosToken
from aphrodite_engine.sampling.stages.custom_token_bans import CustomTokenBans
from aphrodite_engine.sampling.stages.dry import Dry
from aphrodite_engine.sampling.stages.min_tokens import MinTokens
from aphrodite_engine.sampling.stages.no_repeat_ngram import NoRepeatNgram
from aphrodite_engine.sampling.stages.penalties import Penalties
from aphrodite_engine.sampling.stages.token_ban_ranges import TokenBanRanges
from aphrodite_engine.text.gguf_tokenizer import gguf_tokenizer
from aphrodite_engine.text.tokenizer import SpecialTokens, Tokenizer
from aphrodite_engine.text.vocabulary import Vocabulary, sentencepiece
from history_stages import breaker, definition
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stages import logits_of, run
from tokenizers import Tokenizer as Encoder
from tokenizers import models, normalizers

DATA = Path(__file__).parent / "data" / "tokenizers"
_INF = float("inf")
_FEW = st.integers(0, 3)
_BREAKERS = st.lists(
    st.builds(breaker, st.sets(_FEW, min_size=1), st.lists(_FEW, max_size=3)), max_size=4
)
_STAGES = (
    st.builds(
        Dry,
        st.floats(0.1, 5),
        st.floats(1, 2),
        st.integers(0, 4),
        dry_range=st.integers(0, 40),
        breakers=_BREAKERS.map(lambda each: tuple({b.tail: b for b in each}.values())),
    )
    | st.builds(NoRepeatNgram, st.integers(1, 9))
    | st.builds(
        Penalties,
        st.floats(0.5, 2),
        st.floats(-2, 2),
        st.floats(-2, 2),
        st.integers(0, 40),
        st.floats(0.1, 1),
        st.integers(0, 9),
    )
    | st.builds(
        BadWords,
        st.just(("x",)),
        st.lists(st.lists(_FEW, min_size=1, max_size=4).map(tuple), min_size=1).map(tuple),
    )
)


@pytest.mark.parametrize("everywhere", [False, True], ids=["cpu", "device"])
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_histories_that_repeat_themselves(everywhere, data):
    """Rows of few different tokens, in company, against the definition.

    On a device of its own stages see all places, since to choose among them would be to wait.
    """
    first = data.draw(_STAGES)
    same = _STAGES.filter(lambda stage: type(stage) is type(first))
    each = [first, *data.draw(st.lists(same, max_size=2))]
    known = [data.draw(st.lists(_FEW, min_size=2, max_size=40)) for _ in each]
    prompts = [data.draw(st.integers(1, len(row))) for row in known]
    tokens = torch.zeros(len(each), 40, dtype=torch.int64)
    for row, several in zip(tokens, known, strict=True):
        row[: len(several)] = torch.tensor(several)
    logits = logits_of("random", data.draw(st.sampled_from([4, 50])), len(each))
    with pytest.MonkeyPatch.context() as patch:
        if everywhere:
            patch.setattr(history, "repeats_from", lambda _, *places: all_repeats(*places))
        out = run(each, logits, tokens, prompts, [len(row) for row in known]).numpy()
    for row, stage in enumerate(each):
        prompt, output = known[row][: prompts[row]], known[row][prompts[row] :]
        wanted = definition(stage, logits[row].double().numpy(), prompt, output)
        np.testing.assert_allclose(out[row], wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "stage",
    [
        CustomTokenBans((0, 1, 2)),
        MinTokens(100, (0, 1, 2)),
        NoRepeatNgram(1),
        BadWords(("x",), ((0,), (1,), (2,))),
        TokenBanRanges((((0, 1, 2), 0, 100),)),
        AllowedTokenIds((1,)),
        Dry(5.0, 100.0, 0),
    ],
    ids=lambda stage: stage.name(),
)
def test_a_token_is_always_left(stage):
    """Where all would go, the stage is without effect; other rows are not concerned."""
    tokens = torch.tensor([[0, 1, 2] * 20])
    for logits in (torch.tensor([[1.0, 2.0, -3.0]]), torch.tensor([[1.0, -_INF, 0.0]])):
        out = run([stage], logits, tokens)
        assert (out > -_INF).any()
        if not isinstance(stage, Dry | AllowedTokenIds):
            assert torch.equal(out, logits)
    nothing = torch.full((1, 3), -_INF)
    assert torch.equal(run([stage], nothing, tokens), nothing)


@pytest.mark.parametrize("length", [100, 1000])
def test_all_tokens_of_a_repetition_count(length):
    tokens = torch.arange(length).repeat(2)[None]
    logits = torch.zeros(1, length)
    out = run([Dry(1.0, 1.005, 90)], logits, tokens)
    assert out[0, 0].item() == pytest.approx(-(1.005 ** (length - 90)), rel=1e-4)
    assert (out[0, 1:] == 0).all()
    assert torch.equal(run([Dry(1.0, 1.005, length + 1)], logits, tokens), logits)
    for size, banned in [(length + 1, [0]), (length + 2, [])]:
        out = run([NoRepeatNgram(size)], logits, tokens)
        assert (out[0] < 0).nonzero().view(-1).tolist() == banned


def test_many_tails_are_told_apart():
    """More than fit in one word of bits."""
    breakers = tuple(breaker([i], [i + 1, 7]) for i in range(150))
    history = [5, 6, 140, 141, 7, 5, 6, 5, 6]
    for known, penalised in [(history, True), ([5, 6, 9, 140, 141, 7, 5, 6, 140, 141, 7], False)]:
        out = run([Dry(1.0, breakers=breakers)], torch.zeros(1, 200), torch.tensor([known]))
        assert bool((out < 0).any()) == penalised
        wanted = definition(Dry(1.0, breakers=breakers), np.zeros(200), known, [])
        np.testing.assert_allclose(out[0], wanted, atol=1e-6)


# Texts.


@pytest.fixture(scope="module")
def tokenizer():
    """Every token a piece of its own; the longest that fits is taken."""
    letters = [*"abceinoprstuwxU:.!\u2581\n", "\u00e4"]
    merges = [("e", "r"), ("s", "er"), ("U", "ser"), (".", "\n"), ("\u2581", "a"), (":", "!")]
    pieces = [*letters, *(left + right for left, right in merges)]
    encoder = Encoder(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges))

    encoder.normalizer = normalizers.Replace(" ", "\u2581")
    vocabulary = Vocabulary(pieces, sentencepiece, frozenset(), frozenset())
    return Tokenizer(encoder, vocabulary, SpecialTokens())


def spelled(tokenizer, breakers):
    text = tokenizer.token_text
    return {
        "".join(map(text, each.tail)): {text(head) for head in memoryview(each.heads).cast("i")}
        for each in breakers
    }


def test_breakers_are_found_however_they_are_cut(tokenizer):
    assert spelled(tokenizer, find_breakers(("\n",), tokenizer)) == {"": {"\n", ".\n"}}
    found = spelled(tokenizer, find_breakers(("\nUser:", ":"), tokenizer))
    assert found[""] == {":", ":!"}
    assert found["User:"] == {"\n", ".\n"}
    found = spelled(tokenizer, find_breakers(("User:",), tokenizer))
    assert found == {"": set(), "ser:": {"U"}, ":": {"User"}}
    assert find_breakers(("",), tokenizer) == ()
    assert find_breakers((), tokenizer) == ()


def test_breakers_stop_a_repetition(tokenizer):
    def penalised(text, *breakers):
        stage = Dry(1.0, dry_sequence_breakers=breakers).resolve(tokenizer)
        known = torch.tensor([tokenizer.encode(text)])
        out = run([stage], torch.zeros(1, tokenizer.vocab_size), known)[0]
        return {tokenizer.token_text(token) for token in (out < 0).nonzero()[:, 0].tolist()}

    assert penalised("bnoxbno") == {"x"}
    assert penalised("bn.\nxbn.\n") == {"x"}
    assert penalised("bn.\nxbn.\n", "\n") == set()
    assert penalised("nUser:oxnUser:o") == {"x"}
    assert penalised("nUser:oxnUser:o", "User:") == set()
    assert penalised("bno:!bno", ":") == set()


def test_bad_words_are_spelled_with_and_without_a_space(tokenizer):
    stage = BadWords(("a", " User")).resolve(tokenizer)
    texts = {tuple(map(tokenizer.token_text, each)) for each in stage.bad_tokens}
    assert texts == {("a",), (" a",), ("User",), (" ", "User")}


def test_parameters_with_texts_are_resolved_once(tokenizer):
    fields = {"dry_multiplier": 1, "bad_words": ["a"], "top_k": 5}
    params = SamplingParams(stages=stages_from(fields))
    assert params.reads_text
    resolved = params.resolve(tokenizer)
    assert resolved.resolve(tokenizer) == resolved
    sent = msgspec.msgpack.encode(resolved)
    assert msgspec.msgpack.decode(sent, type=SamplingParams) == resolved
    dry = next(stage for stage in resolved.stages if isinstance(stage, Dry))
    assert dry.breakers
    plain = SamplingParams(stages=stages_from({"top_k": 5}))
    assert plain.resolve(tokenizer) is plain


# Wire fields.


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"dry_multiplier": 1}, (Dry(1.0),)),
        ({"dry_multiplier": 0, "dry_base": 3}, ()),
        ({"dry_multiplier": 1, "dry_penalty_last_n": 9}, (Dry(1.0, dry_range=9),)),
        ({"dry_multiplier": 1, "dry_sequence_breakers": None}, (Dry(1.0),)),
        ({"dry_multiplier": 1, "dry_sequence_breakers": []}, (Dry(1.0, dry_sequence_breakers=()),)),
        ({"dry_multiplier": 1, "dry_sequence_breakers": ""}, (Dry(1.0, dry_sequence_breakers=()),)),
        (
            {"dry_multiplier": 1, "dry_sequence_breakers": json.dumps(["\n", "x"])},
            (Dry(1.0, dry_sequence_breakers=("\n", "x")),),
        ),
        *(
            (
                {"dry_multiplier": 1, "dry_sequence_breakers": written},
                (Dry(1.0, dry_sequence_breakers=breakers),),
            )
            for written, breakers in (
                (r'"\n", ":", "\"", "*"', ("\n", ":", '"', "*")),
                (r'\n,:,",*', ("\n", ":", '"', "*")),
                (r":,\",\\", (":", '"', "\\")),
                (" x,y", (" x", "y")),
                ("\n", ("\n",)),
                ("[]", ()),
            )
        ),
        ({"custom_token_bans": "11,42"}, (CustomTokenBans((11, 42)),)),
        ({"custom_token_bans": "[3]"}, (CustomTokenBans((3,)),)),
        ({"custom_token_bans": ""}, ()),
        ({"ban_eos_token": True}, (BanEosToken(True),)),
        ({"use_default_badwordsids": True, "ban_eos_token": None}, (BanEosToken(True),)),
        ({"rep_pen_range": 9, "rep_pen_slope": 0.5}, ()),
        (
            {"rep_pen": 1.1, "repetition_penalty_range": 9, "rep_pen_slope": 0.5},
            (Penalties(1.1, rep_pen_range=9, rep_pen_slope=0.5),),
        ),
        ({"token_ban_ranges": [[[1, 2], 0, 3]]}, (TokenBanRanges((((1, 2), 0, 3),)),)),
        ({"custom_token_bans": [3]}, (CustomTokenBans((3,)),)),
    ],
)
def test_wire_spellings(fields, made):
    assert stages_from(fields) == made


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dry_base": 0.5}, "dry_base must be at least 1, found 0.5"),
        ({"dry_allowed_length": -1}, "dry_allowed_length must be at least 0, found -1"),
        ({"dry_sequence_breakers": '["x"'}, "dry_sequence_breakers must be a list, or one"),
        (
            {"dry_sequence_breakers": '"x",y'},
            "dry_sequence_breakers must be a list, or one written",
        ),
        (
            {"dry_sequence_breakers": r"a,\z"},
            "dry_sequence_breakers must be a list, or one written",
        ),
        (
            {"dry_sequence_breakers": "{}"},
            "dry_sequence_breakers must be a list of strings",
        ),
        ({"custom_token_bans": "1,x"}, "custom_token_bans must be a list, or one written as JSON"),
        ({"custom_token_bans": "1.5"}, "custom_token_bans must be a list of token ids"),
        ({"ban_eos_token": 1}, "ban_eos_token must be true or false, found 1"),
        ({"dry_sequence_breakers": [3]}, "dry_sequence_breakers must be a list of strings"),
        (
            {"token_ban_ranges": [[[1], 2]]},
            r"must be a list of \[list of token ids, ",
        ),
        ({"token_ban_ranges": [[[1], -2, 3]]}, r"token_ban_ranges\[0\]\[1\] must be at least 0"),
        ({"rep_pen_slope": 2}, "rep_pen_slope must be above 0 and at most 1, found 2"),
        (
            {"breakers": [1], "custom_token_bans": [-1]},
            r"custom_token_bans\[0\] must be at least 0",
        ),
    ],
)
def test_bad_values_are_named(fields, message):
    with pytest.raises(RequestError, match=message) as caught:
        stages_from(fields)
    assert caught.value.field in fields


def test_a_banned_end_is_what_the_tokenizer_calls_one():
    tokenizer = gguf_tokenizer(json.loads((DATA / "smollm2.json").read_text())["metadata"])
    assert tokenizer.end_ids
    params = SamplingParams(stages=stages_from({"ban_eos_token": True}))
    (stage,) = params.resolve(tokenizer).stages
    assert stage.ends == tuple(sorted(tokenizer.end_ids))


def test_fields_that_are_hidden_cannot_be_sent():
    assert stages_from({"breakers": [[b"", []]], "bad_tokens": [[1]]}) == ()


@pytest.mark.parametrize(
    "stage",
    [TokenBanRanges((((3, 500), 0, 600),)), CustomTokenBans((500,)), AllowedTokenIds((500,))],
)
def test_token_ids_are_compared_with_the_vocabulary(stage):
    params = SamplingParams(stages=(stage,))
    params.check_vocabulary(501)
    with pytest.raises(RequestError, match=r"token 500.*ends at 499"):
        params.check_vocabulary(500)
