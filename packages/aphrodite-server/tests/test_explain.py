"""/v1/samplers/explain: what is asked of the engine, how its answer is told, what is refused."""

import pytest
from aphrodite_engine.sampling.explanation import Candidate, Explanation, Spread, StageEffect

PATH = "/v1/samplers/explain"
EXPLANATION = Explanation(
    token=97,
    greedy=False,
    stages=[
        StageEffect(
            stage="top_k",
            fields={"top_k": 1},
            before=Spread(2, 0.5),
            after=Spread(1, 0.0),
            top=[Candidate(97, 0.75, 1.0), Candidate(200, 0.25, 0.0)],
        )
    ],
    final=Spread(1, 0.0),
    top=[(97, 1.0)],
)


@pytest.fixture
def explained(engine, monkeypatch):
    """The engine brings an explanation with the first token, as a real one does."""
    make = engine._output

    def output(choice, new, params, *rest):
        made = make(choice, new, params, *rest)
        if params.explain is not None:
            made.explanations.append(EXPLANATION)
        return made

    monkeypatch.setattr(engine, "_output", output)
    return engine


def test_an_answer(call, explained):
    body = {"prompt": "ab", "top_k": 1, "top": 2, "max_tokens": 50, "stop": "zz"}
    answer = call(PATH, body).json()
    assert answer["object"] == "sampler.explanation"
    assert answer["token"] == {"id": 97, "text": "a"}
    (stage,) = answer["samplers"]
    assert stage == {
        "name": "top_k",
        "fields": {"top_k": 1},
        "candidates": {"before": 2, "after": 1},
        "entropy": {"before": 0.5, "after": 0.0},
        "tokens": [
            {"id": 97, "text": "a", "before": 0.75, "after": 1.0},
            {"id": 200, "text": "bytes:\\xc8", "before": 0.25, "after": 0.0},
        ],
    }
    assert answer["final"] == {
        "candidates": 1,
        "entropy": 0.0,
        "tokens": [{"id": 97, "text": "a", "probability": 1.0}],
    }
    assert answer["usage"]["total_tokens"] == 4
    prompt, params, *_ = explained.seen[0]
    assert prompt == [256, 97, 98]
    assert (params.explain, params.max_tokens, params.n) == (2, 1, 1)


def test_a_conversation(call, explained):
    messages = [{"role": "user", "content": "Hi"}]
    assert call(PATH, {"messages": messages}).status_code == 200
    call("/v1/chat/completions", {"messages": messages})
    assert explained.seen[0][0] == explained.seen[1][0]
    assert [params.explain for _, params, *_ in explained.seen] == [20, None]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"prompt": "a", "top": 101}, "top"),
        ({"prompt": "a", "top": 0}, "top"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "use_beam_search": True}, "use_beam_search"),
        ({"prompt": "a", "stream": True}, "stream"),
        ({"prompt": "a", "prompt_logprobs": 1}, "prompt_logprobs"),
        ({"prompt": "a", "top_p": 2}, "top_p"),
        ({"prompt": "a", "preset": "no"}, "preset"),
    ],
)
def test_what_is_refused(call, engine, fields, field):
    answer = call(PATH, fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert engine.seen == []


def test_a_request_that_ends_early(call, engine):
    """Without an explanation there is an error in words."""
    answer = call(PATH, {"prompt": "a"})
    assert answer.status_code == 500
    assert "ended before its token" in answer.json()["error"]["message"]


def test_completions_do_not_explain(call, engine):
    answer = call("/v1/completions", {"prompt": "a", "explain": 3})
    assert "explain" in answer.headers["x-aphrodite-ignored-fields"]
    assert engine.seen[0][1].explain is None
