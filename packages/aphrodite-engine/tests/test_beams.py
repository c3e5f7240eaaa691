"""Beam search against transformers' `generate`, over a tiny random model in float32."""

import pytest
import torch
from aphrodite_engine.beams import BeamSearch, ranked
from aphrodite_engine.errors import ContextLengthError, RequestError
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs

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


def likeliest(model, prompts, count):
    with torch.no_grad():
        scores = model(torch.tensor(prompts)).logits[:, -1].log_softmax(-1)
    top = scores.topk(min(count, VOCABULARY))
    rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    pairs = [list(zip(*row, strict=True)) for row in rows]
    return [TokenLogprobs(*row[0], 1, row) for row in pairs]


def searched(model, params, ends=lambda tokens: False):
    search = BeamSearch(params, PROMPT, 64, frozenset({END}), ends)
    while not search.done:
        search.advance(likeliest(model, search.wanted, search.step.logprobs))
    return search.best


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


@pytest.mark.usefixtures("one_thread")
def test_bans_are_those_of_transformers(model):
    free = SamplingParams(use_beam_search=True, n=3, max_tokens=8)
    banned = sorted({token for beam in searched(model, free) for token in beam.tokens} - {END})[:3]
    params = SamplingParams(
        use_beam_search=True, n=3, max_tokens=8, stages=stages_from({"custom_token_bans": banned})
    )  # fmt: skip
    expected = model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, 3, dtype=torch.long), do_sample=False,
        num_beams=3, num_return_sequences=3, max_new_tokens=8, suppress_tokens=banned,
        output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    beams = searched(model, params)
    assert [list(beam.tokens) for beam in beams] != [list(b.tokens) for b in searched(model, free)]
    for beam, tokens, score in zip(
        beams, expected.sequences.tolist(), expected.sequences_scores.tolist(), strict=True
    ):
        assert tokens[3:] == [*beam.tokens] + [2] * (len(tokens) - 3 - len(beam.tokens))
        assert beam.score(1.0) == pytest.approx(score, abs=1e-3)


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
        (
            {
                "use_beam_search": True,
                "stages": stages_from({"custom_token_bans": list(range(60001))}),
            },
            "custom_token_bans holds 60001 tokens",
        ),
    ],
)
def test_contradictions_are_refused(fields, message):
    with pytest.raises(RequestError, match=message):
        SamplingParams(**fields)


def test_the_best_have_the_highest_logprob_per_token():
    def scores(*logprobs):
        return [TokenLogprobs(0, logprob, 1, []) for logprob in logprobs]

    assert ranked([scores(-1, -3), scores(-1.5), [], scores(-0.5, -0.5, -3)], 3) == [3, 1, 0]
