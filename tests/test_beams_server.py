"""Beam search and best_of over HTTP: on every endpoint what the offline `LLM` finds."""

import pytest
from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.sampling.catalog import stages_from

pytestmark = pytest.mark.weights

PROMPT = "The capital of France is"
MESSAGES = [{"role": "user", "content": "Name three colours."}]
COMPLETIONS, CHAT, KOBOLD = "/v1/completions", "/v1/chat/completions", "/api/v1/generate"
STREAM = "/api/extra/generate/stream"
BEAMS = {"use_beam_search": True, "n": 2, "best_of": 3, "length_penalty": 0.5}
SHAPED = {"logit_bias": {"7042": -100}, "bad_words": ["France"], "no_repeat_ngram_size": 3}
DRAWN = {"n": 1, "best_of": 3, "temperature": 1.2, "seed": 5}


@pytest.fixture(scope="module")
def llm():
    with LLM("demo", deterministic=True, max_model_len=256, max_num_seqs=8) as llm:
        yield llm


def texts(answer):
    assert answer.status == 200, answer.body
    body = answer.json
    if "results" in body:
        return [one["text"] for one in body["results"]]
    return [
        one["message"]["content"] if "message" in one else one["text"] for one in body["choices"]
    ]


def found(generations):
    return [one.text for one in generations[0].completions]


@pytest.mark.parametrize("fields", [{}, {"custom_token_bans": [7042]}, SHAPED])
def test_beams(server, llm, fields):
    params = SamplingParams(max_tokens=12, stages=stages_from(fields), **BEAMS)
    expected = found(llm.generate(PROMPT, params, progress=False))
    assert len(set(expected)) == 2
    if fields:
        assert not any(" Paris" in text for text in expected)
    body = {"prompt": PROMPT, **fields, **BEAMS}
    assert texts(server.request("POST", COMPLETIONS, {**body, "max_tokens": 12})) == expected
    assert texts(server.request("POST", KOBOLD, {**body, "max_length": 12})) == expected
    asked = {"messages": MESSAGES, **fields, "max_tokens": 12, **BEAMS}
    answer = server.request("POST", CHAT, asked)
    assert texts(answer) == found(llm.chat(MESSAGES, params, progress=False))
    assert [one["index"] for one in answer.json["choices"]] == [0, 1]


def test_best_of(server, llm):
    samplers = stages_from({"temperature": DRAWN["temperature"]})
    params = SamplingParams(max_tokens=8, seed=5, best_of=3, stages=samplers)
    expected = found(llm.generate(PROMPT, params, progress=False))
    assert (
        texts(server.request("POST", COMPLETIONS, {"prompt": PROMPT, "max_tokens": 8, **DRAWN}))
        == expected
    )
    assert (
        texts(server.request("POST", KOBOLD, {"prompt": PROMPT, "max_length": 8, **DRAWN}))
        == expected
    )
    asked = {"messages": MESSAGES, "max_tokens": 8, **DRAWN}
    chatted = texts(server.request("POST", CHAT, asked))
    assert chatted == found(llm.chat(MESSAGES, params, progress=False))
    usage = server.request("POST", CHAT, asked).json["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert 0 < cached < usage["prompt_tokens"], "of three completions, once"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, {"prompt": PROMPT, "stream": True}),
        (CHAT, {"messages": MESSAGES, "stream": True}),
        (STREAM, {"prompt": PROMPT}),
    ],
)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"use_beam_search": True}, "use_beam_search cannot stream, because no beam is certain"),
        ({"best_of": 2}, "best_of (2) above n (1) cannot stream"),
    ],
)
def test_streams_are_refused(server, path, body, fields, message):
    answer = server.request("POST", path, {**body, **fields})
    assert answer.status == 400
    assert message in answer.body.decode()


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, KOBOLD])
def test_samplers_that_cannot_act_are_named(server, path):
    prompt = {"messages": MESSAGES} if path == CHAT else {"prompt": PROMPT}
    answer = server.request("POST", path, {**prompt, "use_beam_search": True, "min_p": 0.1})
    assert answer.status == 400
    assert "a beam search draws nothing, so min_p cannot act" in answer.body.decode()
