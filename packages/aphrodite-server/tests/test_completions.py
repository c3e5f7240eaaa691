"""/v1/completions, against an engine that says "Hello, world!"."""

import json

import pytest

PATH = "/v1/completions"


def events(response):
    """The JSON of each event; the stream must end with [DONE]."""
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = response.text.split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    assert all(part.startswith("data: {") for part in parts[:-2])
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def test_answer(call):
    response = call(PATH, {"prompt": "Say hello", "max_tokens": 50})
    body = response.json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert isinstance(body["created"], int)
    assert body["model"] == "fake/model"
    assert body["choices"] == [
        {
            "index": 0,
            "text": "Hello, world!",
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 14,
        "total_tokens": 24,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_cached_tokens_are_those_of_each_prompt_once(call, engine):
    engine.cached = 8
    body = {"prompt": ["a" * 20, "b" * 20], "n": 3, "max_tokens": 50}
    usage = call(PATH, body).json()["usage"]
    assert usage["prompt_tokens"] == 42
    assert usage["prompt_tokens_details"] == {"cached_tokens": 16}


def test_sixteen_tokens_unless_told_otherwise(call, engine):
    engine.text = "x" * 40
    (choice,) = call(PATH, {"prompt": "a"}).json()["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("x" * 16, "length")


def test_stream_equals_answer(call):
    body = {"prompt": "a", "max_tokens": 50, "n": 2, "logprobs": 2}
    whole = call(PATH, body).json()["choices"]
    chunks = events(call(PATH, {**body, "stream": True}))
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    for choice in whole:
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in mine) == choice["text"]
        assert [piece["finish_reason"] for piece in mine] == [None] * (len(mine) - 1) + ["stop"]
        for key, values in choice["logprobs"].items():
            assert [one for piece in mine for one in piece["logprobs"][key]] == values


def test_usage_chunk_only_when_asked(call):
    plain = events(call(PATH, {"prompt": "a", "stream": True}))
    assert all(chunk["choices"] and "usage" not in chunk for chunk in plain)
    *chunks, last = events(
        call(PATH, {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}})
    )
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 14
    assert all(chunk["usage"] is None for chunk in chunks)


def test_usage_in_every_chunk(call):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events(call(PATH, {"prompt": "a", "stream": True, "stream_options": options}))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks[:3]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("ab", [[256, 97, 98]]),
        (["ab", "c"], [[256, 97, 98], [256, 99]]),
        ([97, 98], [[97, 98]]),
        ([[97], [98, 99]], [[97], [98, 99]]),
    ],
)
def test_prompt_forms(call, engine, prompt, tokens):
    body = call(PATH, {"prompt": prompt, "n": 2, "max_tokens": 1}).json()
    assert [seen[0] for seen in engine.seen] == tokens
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * len(tokens)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, tokens))
    assert body["usage"]["completion_tokens"] == 2 * len(tokens)


@pytest.mark.parametrize("prompt", [[], {}, 7, [1, "a"], ["a", [1]], [[]], [True], [1.5], None])
def test_bad_prompts(call, prompt):
    response = call(PATH, {"prompt": prompt})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt"


def test_special_tokens_of_a_text_prompt(call, engine):
    call(PATH, {"prompt": "a", "add_special_tokens": False})
    call(PATH, {"prompt": "a", "add_bos_token": False})
    assert [seen[0] for seen in engine.seen] == [[97], [97]]


@pytest.mark.parametrize("stop", ["wor", ["xyz", "wor"], ["", "wor"]])
def test_stop_strings(call, stop):
    body = {"prompt": "a", "stop": stop, "max_tokens": 50}
    (choice,) = call(PATH, body).json()["choices"]
    assert choice["text"] == "Hello, "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "wor")
    streamed = "".join(
        e["choices"][0]["text"] for e in events(call(PATH, {**body, "stream": True}))
    )
    assert streamed == "Hello, "


@pytest.mark.parametrize("stop", [None, [], ""])
def test_no_stop_strings(call, engine, stop):
    call(PATH, {"prompt": "a", "stop": stop})
    assert engine.seen[0][1].stop == ()


def test_logprobs(call):
    body = {"prompt": "a", "max_tokens": 3, "logprobs": 2}
    logprobs = call(PATH, body).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["H", "e", "l"],
        "token_logprobs": [-0.5, -0.5, -0.5],
        "top_logprobs": [{"H": -0.5, "I": -1.5}, {"e": -0.5, "f": -1.5}, {"l": -0.5, "m": -1.5}],
        "text_offset": [0, 1, 2],
    }


def test_zero_logprobs_are_of_the_chosen_token(call):
    logprobs = call(PATH, {"prompt": "a", "max_tokens": 2, "logprobs": 0}).json()["choices"][0][
        "logprobs"
    ]
    assert logprobs["top_logprobs"] == [{"H": -0.5}, {"e": -0.5}]


def test_parts_of_characters(call, engine):
    engine.text = "é"
    logprobs = call(PATH, {"prompt": "a", "logprobs": 0, "max_tokens": 9}).json()["choices"][0][
        "logprobs"
    ]
    assert logprobs["tokens"][:2] == ["bytes:\\xc3", "bytes:\\xa9"]


def test_echo(call):
    body = {"prompt": "Well? ", "echo": True, "n": 2, "max_tokens": 20}
    choices = call(PATH, body).json()["choices"]
    assert [choice["text"] for choice in choices] == ["Well? Hello, world!"] * 2
    chunks = events(call(PATH, {**body, "n": 1, "stream": True}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Well? Hello, world!"


def test_echo_of_tokens(call):
    (choice,) = call(PATH, {"prompt": [72, 105], "echo": True, "max_tokens": 1}).json()["choices"]
    assert choice["text"] == "HiH"
    assert "prompt_logprobs" not in choice


@pytest.mark.parametrize("stream", [False, True])
def test_loglikelihood_as_harnesses_ask_for_it(call, stream):
    body = {
        "prompt": [[72, 105, 33], [72, 105]],
        "echo": True,
        "logprobs": 1,
        "max_tokens": 1,
        "temperature": 0,
        "seed": 1234,
    }
    response = call(PATH, {**body, "stream": stream})
    if stream:
        found = {c["choices"][0]["index"]: c["choices"][0]["logprobs"] for c in events(response)}
        logprobs = found[0]
    else:
        logprobs = response.json()["choices"][0]["logprobs"]
    assert {len(values) for values in logprobs.values()} == {4}
    assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
    assert logprobs["tokens"] == ["H", "i", "!", "H"]
    assert logprobs["text_offset"] == [0, 1, 2, 3]
    context = 1
    for place in range(context, 3):
        top = logprobs["top_logprobs"][place]
        assert max(top, key=top.get) == logprobs["tokens"][place]
        assert max(top.values()) == logprobs["token_logprobs"][place]


def test_scoring_without_generating(call):
    body = {"prompt": "Hi", "echo": True, "logprobs": 0, "max_tokens": 0}
    (choice,) = call(PATH, body).json()["choices"]
    assert choice["text"] == "Hi"
    assert choice["logprobs"]["tokens"] == ["<s>", "H", "i"]
    assert choice["logprobs"]["text_offset"] == [0, 0, 1]


def test_no_tokens_without_echo(call):
    assert call(PATH, {"prompt": "a", "max_tokens": 0}).json()["error"]["param"] == "max_tokens"


def test_prompt_logprobs(call):
    (choice,) = call(PATH, {"prompt": "Hi", "prompt_logprobs": 1}).json()["choices"]
    assert choice["prompt_logprobs"] == [
        None,
        {"72": {"logprob": -0.5, "rank": 1, "decoded_token": "H"}},
        {"105": {"logprob": -0.5, "rank": 1, "decoded_token": "i"}},
    ]
    refused = call(PATH, {"prompt": "Hi", "prompt_logprobs": 1, "stream": True})
    assert refused.status_code == 400


@pytest.mark.parametrize(("seed", "seen"), [(None, None), (-1, None), (-5, -5), (2**63, 2**63)])
def test_seeds(call, engine, seed, seen):
    call(PATH, {"prompt": "a", "seed": seed})
    assert engine.seen[0][1].seed == seen


def test_abort_is_no_reason_of_openai(call, engine):
    engine._output = lambda choice, *rest: (
        type(engine)
        ._output(engine, choice, *rest)
        .__class__(id="x", choice=choice, tokens=[], finish_reason="abort")
    )
    (choice,) = call(PATH, {"prompt": "a"}).json()["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "abort")
