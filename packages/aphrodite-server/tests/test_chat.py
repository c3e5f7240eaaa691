"""/v1/chat/completions, against an engine that says "Hello, world!"."""

import json

import pytest

PATH = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "Hi"}]}


def prompt_text(engine, place=0):
    return engine.tokenizer.decode(engine.seen[place][0], skip_special=False)


def test_answer(call, engine):
    body = call(PATH, ASK).json()
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, world!"},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert body["usage"]["total_tokens"] == len(engine.seen[0][0]) + 14
    assert prompt_text(engine) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert engine.seen[0][1].max_tokens is None


def test_stream(call):
    body = {**ASK, "stream": True, "n": 2, "stream_options": {"include_usage": True}}
    response = call(PATH, body)
    parts = response.text.removesuffix("data: [DONE]\n\n").strip().split("\n\n")
    *chunks, last = [json.loads(part.removeprefix("data: ")) for part in parts]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert last["choices"] == []
    for index in (0, 1):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert all("role" not in piece["delta"] for piece in mine[1:])
        assert "".join(piece["delta"].get("content", "") for piece in mine) == "Hello, world!"
        assert [piece["finish_reason"] for piece in mine] == [None] * (len(mine) - 1) + ["stop"]


def test_logprobs(call):
    body = {**ASK, "logprobs": True, "top_logprobs": 2, "max_tokens": 1}
    logprobs = call(PATH, body).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "content": [
            {
                "token": "H",
                "logprob": -0.5,
                "bytes": [72],
                "top_logprobs": [
                    {"token": "H", "logprob": -0.5, "bytes": [72]},
                    {"token": "I", "logprob": -1.5, "bytes": [73]},
                ],
            }
        ]
    }


def test_logprobs_without_others(call):
    body = {**ASK, "logprobs": True, "max_tokens": 1}
    (entry,) = call(PATH, body).json()["choices"][0]["logprobs"]["content"]
    assert entry["top_logprobs"] == []


def test_top_logprobs_need_logprobs(call):
    response = call(PATH, {**ASK, "top_logprobs": 2})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "top_logprobs"


def test_newer_name_of_max_tokens_wins(call, engine):
    call(PATH, {**ASK, "max_tokens": 9, "max_completion_tokens": 3})
    call(PATH, {**ASK, "max_tokens": 9})
    assert [seen[1].max_tokens for seen in engine.seen] == [3, 9]


def test_roles_and_contents(call, engine):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "1", "content": "found"},
    ]
    assert call(PATH, {"messages": messages}).status_code == 200
    turns = prompt_text(engine).split("<|im_start|>")[1:5]
    assert [turn.split("<|im_end|>")[0] for turn in turns] == [
        "system\nBe brief.",
        "user\na\nb",
        "assistant\n",
        "tool\nfound",
    ]


def test_images_are_refused(call):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    response = call(PATH, {"messages": [{"role": "user", "content": [part]}]})
    assert response.status_code == 400
    assert "image_url" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        (None, "messages"),
        ("Hi", "messages"),
        ([{"content": "Hi"}], "messages[0].role"),
        ([{"role": "wizard", "content": "Hi"}], "messages[0].role"),
        ([{"role": "user", "content": 7}], "messages[0].content"),
    ],
)
def test_bad_messages(call, messages, param):
    response = call(PATH, {"messages": messages})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_continuing_the_last_message(call, engine):
    messages = [*ASK["messages"], {"role": "assistant", "content": "Well, "}]
    call(PATH, {"messages": messages, "continue_final_message": True})
    assert prompt_text(engine).endswith("assistant\nWell, ")
    both = {"messages": messages, "continue_final_message": True, "add_generation_prompt": True}
    assert call(PATH, both).status_code == 400
