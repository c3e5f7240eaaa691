"""The Kobold API of the real server with a real model."""

import json

import pytest

pytestmark = pytest.mark.weights

PROMPT = "My favourite recipe for a cold evening:"
GENERATE, STREAM = "/api/v1/generate", "/api/extra/generate/stream"


def tokens_of(answer):
    """The texts of a stream, as Kobold Lite finds them."""
    parts = answer.body.decode().split("\n\n")
    assert parts.pop() == ""
    texts = []
    for part in parts:
        kind, data = part.split("\n")
        assert kind == "event: message"
        texts.append(json.loads(data.removeprefix("data: "))["token"])
    return texts


@pytest.mark.parametrize(
    ("ours", "kobolds"),
    [
        ({}, {}),
        (
            {"temperature": 0.9, "repetition_penalty": 1.05, "typical_p": 0.9, "top_k": 50},
            {"temperature": 0.9, "rep_pen": 1.05, "typical": 0.9, "top_k": 50},
        ),
        (
            {
                "temperature": 1.3,
                "min_p": 0.05,
                "epsilon_cutoff": 3,
                "sampler_priority": ["penalties", "top_k", "top_p", "min_p", "temperature"],
            },
            {
                "temperature": 1.3,
                "min_p": 0.05,
                "eps_cutoff": 3,
                "sampler_order": [6, 0, 1, 3, 4, 2, 5],
            },
        ),
        ({"mirostat_mode": 2, "mirostat_tau": 4}, {"mirostat": 2, "mirostat_tau": 4}),
    ],
)
def test_one_seeded_text_on_both_roads(server, ours, kobolds):
    wanted = {"prompt": PROMPT, "max_tokens": 24, "seed": 11, **ours}
    text = server.request("POST", "/v1/completions", wanted).json["choices"][0]["text"]
    asked = {"prompt": PROMPT, "max_length": 24, "sampler_seed": 11, **kobolds}
    (result,) = server.request("POST", GENERATE, asked).json["results"]
    assert result["text"] == text
    tokens = tokens_of(server.request("POST", STREAM, asked))
    assert len(tokens) > 4, "piece by piece"
    assert "".join(tokens) == text


def test_end_of_text_is_banned(server):
    body = {"prompt": "The end.<|im_end|>", "max_length": 60, "temperature": 0}
    (plain,) = server.request("POST", GENERATE, body).json["results"]
    (banned,) = server.request("POST", GENERATE, body | {"ban_eos_token": True}).json["results"]
    assert (plain["finish_reason"], banned["finish_reason"]) == ("stop", "length")


def test_lengths_are_lowered(server):
    body = {"prompt": "word " * 2000, "max_length": 8, "max_context_length": 12288}
    answer = server.request("POST", GENERATE, body)
    assert answer.status == 200
    told = answer.headers["x-aphrodite-clamped-fields"]
    assert told == "max_context_length=1024, prompt=1016"
