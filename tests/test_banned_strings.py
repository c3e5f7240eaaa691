"""Banned texts on a real server: streamed, whole and offline alike."""

import json

COMPLETIONS = "/v1/completions"
BODY = {"model": "demo", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 24}


def test_the_likeliest_answer_is_taken_back(server):
    plain = server.request("POST", COMPLETIONS, BODY).json["choices"][0]["text"]
    assert "Paris" in plain
    banned = BODY | {"banned_strings": ["pARis", ""], "stream_options": {"include_usage": True}}
    whole = server.request("POST", COMPLETIONS, BODY | {"banned_tokens": ["pARis"]}).json
    text = whole["choices"][0]["text"]
    assert "paris" not in text.lower()
    assert text and text != plain
    shown = ""
    with server.stream(COMPLETIONS, banned | {"stream": True}) as events:
        *chunks, last = list(events)
    assert last == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    for choice in (each for chunk in parsed for each in chunk["choices"]):
        shown += choice["text"]
        assert text.startswith(shown)
    assert shown == text
    assert parsed[-1]["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] <= BODY["max_tokens"]
