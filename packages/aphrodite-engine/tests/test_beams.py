"""Beam search against transformers' `generate`, over a tiny random model in float32."""

import pytest
import torch
from aphrodite_engine.beams import BeamSearch, ranked
from aphrodite_engine.errors import ContextLengthError, RequestError
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.sampler import Sampler, Standing
from aphrodite_engine.sampling.stages.allowed_token_ids import AllowedTokenIds
from aphrodite_engine.sampling.stages.bad_words import BadWords
from aphrodite_engine.sampling.stages.ban_eos_token import BanEosToken
from aphrodite_engine.sampling.stages.custom_token_bans import CustomTokenBans
from aphrodite_engine.sampling.stages.logit_bias import LogitBias
from aphrodite_engine.sampling.stages.no_repeat_ngram import NoRepeatNgram
from aphrodite_engine.sampling.stages.token_ban_ranges import TokenBanRanges
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_kernels.backends import reference
from row_starts import row_start

VOCABULARY, END, PROMPT = 24, 5, [1, 7, 3]


@pytest.fixture(scope="module")
def model():
    from transformers import LlamaConfig, LlamaForCausalLM  # and with it Triton: not to collect

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
        initializer_range=0.6, bos_token_id=None, eos_token_id=END, pad_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def likeliest(model, prompts, steps):
    """What the sampler says of the next token of each prompt."""
    with torch.no_grad():
        logits = model(torch.tensor(prompts)).logits[:, -1]
    sampler = Sampler(reference.create(torch.device("cpu"), threads=1, dtype=torch.float32))
    for row, (prompt, step) in enumerate(zip(prompts, steps, strict=True)):
        asked = {"tokens": prompt, "prompt_length": len(prompt)}
        sampler.start(row_start(row, params=step, stop_tokens=[*step.stop_token_ids], **asked))
    lengths = [len(prompt) for prompt in prompts]
    standing = Standing([*range(len(prompts))], lengths, torch.tensor(lengths).int())
    draws = sampler.sample(logits, standing, torch.tensor(prompts).int()).read()
    return [draw.logprobs for draw in draws]


def searched(model, params, ends=lambda tokens: False):
    search = BeamSearch(params, PROMPT, 64, frozenset({END}), ends)
    while not search.done:
        search.advance(likeliest(model, search.wanted, search.steps))
    return search.best


def searched_by_transformers(model, width, **options):
    found = model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, 3, dtype=torch.long), do_sample=False,
        num_beams=width, num_return_sequences=width, max_new_tokens=8, output_scores=True,
        return_dict_in_generate=True, **options,
    )  # fmt: skip
    return list(zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("early", [False, True, "never"])
@pytest.mark.parametrize(
    ("width", "n", "penalty"), [(2, 1, 1.0), (3, 3, -1.0), (6, 4, 2.5), (4, 4, 0.0)]
)
def test_completions_and_scores_are_those_of_transformers(model, width, n, penalty, early):
    params = SamplingParams(
        use_beam_search=True, n=n, best_of=width, length_penalty=penalty, early_stopping=early,
        max_tokens=12, min_tokens=2,
    )  # fmt: skip
    expected = model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, 3, dtype=torch.long), do_sample=False,
        num_beams=width, num_return_sequences=n, length_penalty=penalty, early_stopping=early,
        max_new_tokens=12, min_new_tokens=2, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    beams = searched(model, params)
    for beam, tokens, score in zip(
        beams, expected.sequences.tolist(), expected.sequences_scores.tolist(), strict=True
    ):
        own = list(beam.tokens)
        assert tokens[3:] == own + [2] * (len(tokens) - 3 - len(own))
        assert beam.score(penalty) == pytest.approx(score, abs=1e-3)


def _only(allowed):
    """A processor that transformers applies as its own."""

    def process(tokens, scores):
        mask = torch.full_like(scores, -torch.inf)
        mask[:, list(allowed)] = 0
        return scores + mask

    return process


def _not_at(places, banned):
    def process(tokens, scores):
        if tokens.shape[1] - len(PROMPT) in places:
            scores = scores.clone()
            scores[:, banned] = -torch.inf
        return scores

    return process


_BIAS = {3: 4.0, 9: -6.0, 15: 2.5}
_WORDS = ((4, 8), (7,), (12, 12, 3), (8, 15))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize(
    ("stages", "least", "options"),
    [
        ((CustomTokenBans((1, 4, 8, 15)),), 0, {"suppress_tokens": [1, 4, 8, 15]}),
        ((LogitBias(_BIAS),), 0, {"sequence_bias": [[[t], bias] for t, bias in _BIAS.items()]}),
        ((LogitBias({END: 9.0}),), 3, {"sequence_bias": [[[END], 9.0]], "min_new_tokens": 3}),
        (
            (AllowedTokenIds((2, 3, END, 9, 11)),),
            2,
            {"logits_processor": [_only((2, 3, END, 9, 11))], "min_new_tokens": 2},
        ),
        ((NoRepeatNgram(1),), 0, {"no_repeat_ngram_size": 1}),
        (
            (TokenBanRanges((((17, 16, 6), 1, 3),)),),
            0,
            {"logits_processor": [_not_at(range(1, 4), [17, 16, 6])]},
        ),
        ((BanEosToken(True, (END,)),), 0, {"suppress_tokens": [END]}),
        (
            (LogitBias(_BIAS), CustomTokenBans((1, 2)), NoRepeatNgram(2)),
            4,
            {
                "sequence_bias": [[[t], bias] for t, bias in _BIAS.items()],
                "suppress_tokens": [1, 2],
                "no_repeat_ngram_size": 2,
                "min_new_tokens": 4,
            },
        ),
    ],
    ids=str,
)
def test_bans_and_biases_are_those_of_transformers(model, width, stages, least, options):
    params = SamplingParams(
        use_beam_search=True, n=width, max_tokens=8, min_tokens=least, stages=stages
    )
    free = SamplingParams(use_beam_search=True, n=width, max_tokens=8)
    beams = searched(model, params)
    assert beams != searched(model, free)
    expected = searched_by_transformers(model, width, **options)
    for beam, (tokens, score) in zip(beams, expected, strict=True):
        assert tokens[3:] == [*beam.tokens] + [2] * (len(tokens) - 3 - len(beam.tokens))
        assert beam.score(1.0) == pytest.approx(score, abs=1e-3)


@pytest.mark.usefixtures("one_thread")
def test_words_are_banned_in_the_output_alone(model):
    """Transformers bans them across the end of the prompt as well: these do not begin there."""
    free = SamplingParams(use_beam_search=True, n=3, max_tokens=8)
    likely = [beam.tokens for beam in searched(model, free)]
    words = {beam[1:3] for beam in likely} | {beam[4:6] for beam in likely if len(beam) > 5}
    words = tuple(sorted(word for word in words if word[0] != PROMPT[-1] and END not in word))
    params = SamplingParams(
        use_beam_search=True, n=3, max_tokens=8, stages=(BadWords(("x",), (*words, (11,))),)
    )
    beams = searched(model, params)
    assert [beam.tokens for beam in beams] != likely
    expected = searched_by_transformers(model, 3, bad_words_ids=[*map(list, words), [11]])
    for beam, (tokens, score) in zip(beams, expected, strict=True):
        assert tokens[3:] == [*beam.tokens] + [2] * (len(tokens) - 3 - len(beam.tokens))
        assert beam.score(1.0) == pytest.approx(score, abs=1e-3)
    across = BadWords(("x",), ((PROMPT[-1], likely[0][0]),))
    params = SamplingParams(use_beam_search=True, n=3, max_tokens=8, stages=(across,))
    assert any(beam.tokens[0] == likely[0][0] for beam in searched(model, params))


@pytest.mark.parametrize("output", [(), (4,), (1, 4), (12, 12), (12,), (4, 12, 12)])
def test_what_words_ban_next_is_known_from_the_output(output):
    stage = BadWords(("x",), _WORDS).after(output)
    wanted = {(): {7}, (4,): {7, 8}, (1, 4): {7, 8}, (12, 12): {3, 7}, (12,): {7}}
    assert stage.bad_tokens == tuple((token,) for token in sorted(wanted.get(output, {3, 7})))


def test_bans_of_everything_are_none(model):
    stages = stages_from({"custom_token_bans": list(range(VOCABULARY))})
    params = SamplingParams(use_beam_search=True, n=2, max_tokens=4, stages=stages)
    free = SamplingParams(use_beam_search=True, n=2, max_tokens=4)
    assert searched(model, params) == searched(model, free)


def test_beams_end_at_end_of_text_and_at_the_limit(model):
    params = SamplingParams(use_beam_search=True, n=6, length_penalty=0.0, max_tokens=12)
    lengths = {len(beam.tokens) for beam in searched(model, params) if beam.tokens[-1] == END}
    assert any(length < 12 for length in lengths)
    ignoring = SamplingParams(use_beam_search=True, n=6, max_tokens=12, ignore_eos=True)
    assert {len(beam.tokens) for beam in searched(model, ignoring)} == {12}


def test_a_stop_text_ends_a_beam(model):
    params = SamplingParams(use_beam_search=True, n=3, max_tokens=8, stop=("x",), ignore_eos=True)
    beams = searched(model, params, lambda tokens: len(tokens) == 3)
    assert [(len(beam.tokens), beam.finish_reason) for beam in beams] == [(3, "stop")] * 3


def test_what_does_not_fit_is_refused():
    with pytest.raises(ContextLengthError, match="maximum context length is 8"):
        BeamSearch(SamplingParams(use_beam_search=True, max_tokens=6), PROMPT, 8, frozenset())


def test_samplers_are_refused_by_name():
    with pytest.raises(RequestError, match="min_p") as caught:
        SamplingParams(use_beam_search=True, stages=stages_from({"min_p": 0.1}))
    assert caught.value.field == "min_p"
    SamplingParams(use_beam_search=True, stages=stages_from({"temperature": 0}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best_of": 1, "n": 2}, "best_of must be at least n, found 1 and 2"),
        ({"early_stopping": "soon"}, 'early_stopping must be true, false or "never"'),
        ({"use_beam_search": True, "max_tokens": 0}, "max_tokens must be at least 1"),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**fields)


def test_the_best_have_the_highest_logprob_per_token():
    def scores(*logprobs):
        return [TokenLogprobs(0, logprob, 1, []) for logprob in logprobs]

    assert ranked([scores(-1, -3), scores(-1.5), [], scores(-0.5, -0.5, -3)], 3) == [3, 1, 0]
