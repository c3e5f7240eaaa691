"""What clients are told when something is wrong."""

import asyncio

import pytest
from aphrodite_engine.errors import EngineDeadError, InternalError, OverloadedError, RequestError
from aphrodite_server.app import create_app
from aphrodite_server.settings import Settings

PATH = "/v1/completions"
ASK = {"prompt": "a", "max_tokens": 5}
JSON = {"content-type": "application/json"}


def check(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("raised", "status", "kind"),
    [
        (RequestError("bad", "temperature"), 400, "BadRequestError"),
        (OverloadedError("full"), 503, "ServiceUnavailableError"),
        (EngineDeadError("gone"), 503, "ServiceUnavailableError"),
        (InternalError("defect"), 500, "InternalServerError"),
        (ZeroDivisionError("defect"), 500, "InternalServerError"),
    ],
)
def test_before_the_first_token(call, engine, stream, raised, status, kind):
    engine.error = raised
    response = call(PATH, {**ASK, "stream": stream})
    assert check(response, status)["type"] == kind
    assert ("retry-after" in response.headers) == (status == 503)
    engine.error = None
    assert call(PATH, ASK).status_code == 200


def test_in_a_stream(call, engine):
    engine.error, engine.error_at = EngineDeadError("the engine died"), 3
    response = call(PATH, {**ASK, "stream": True})
    assert response.status_code == 200
    *chunks, told, done, rest = response.text.split("\n\n")
    assert len(chunks) == 3
    assert told.startswith('data: {"error": {"message": "the engine died"')
    assert "InternalServerError" in told
    assert (done, rest) == ("data: [DONE]", "")
    assert engine.running == 0


def test_while_answering(call, engine):
    engine.error, engine.error_at = EngineDeadError("the engine died"), 3
    response = call(PATH, ASK)
    check(response, 500)
    assert "retry-after" not in response.headers


def test_context_overflow(call):
    for body in ({"prompt": "a" * 600}, {"prompt": "a", "max_tokens": 600, "stream": True}):
        error = check(call(PATH, body), 400)
        assert "maximum context length" in error["message"]
        assert error["code"] == "context_length_exceeded"


def test_one_bad_prompt_among_many(call, engine):
    check(call(PATH, {"prompt": ["a", "b" * 600]}), 400)
    assert engine.running == 0


@pytest.mark.parametrize("model", ["default", "fake/model", None])
def test_models(call, model):
    assert call(PATH, {**ASK, "model": model}).status_code == 200


def test_no_such_model(call):
    error = check(call(PATH, {**ASK, "model": "gpt-9"}), 404)
    assert error["param"] == "model"
    assert error["code"] == "model_not_found"
    assert "gpt-9" in error["message"]
    check(call("/v1/models/gpt-9"), 404)


def test_served_names(engine, post):
    app = create_app(engine, Settings(served_model_names=("one", "two")))
    assert post(app, PATH, {**ASK, "model": "two"}).json()["model"] == "one"
    assert post(app, PATH, {**ASK, "model": "fake/model"}).status_code == 404


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "messages|missing|JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe{}", "UTF|JSON"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        (b'["prompt"]', "object"),
        (b'"prompt"', "object"),
        (b'{"prompt": "\\ud800"}', "prompt|Unicode"),
        (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested|prompt"),
        (b"{}", "prompt"),
    ],
)
def test_unreadable_bodies(call, content, words):
    error = check(call(PATH, content=content, headers=JSON), 400)
    assert any(word in error["message"] for word in words.split("|")), error
    assert "\n" not in error["message"]


def test_wrong_content_type(call):
    headers = {"content-type": "text/plain"}
    error = check(call(PATH, content=b'{"prompt": "a"}', headers=headers), 400)
    assert "application/json" in error["message"]


def test_absent_content_type_is_json(call):
    assert call(PATH, content=b'{"prompt": "a"}').status_code == 200


def test_large_bodies(engine, post):
    app = create_app(engine, Settings(max_body_bytes=100))
    check(post(app, PATH, {"prompt": "a" * 100}), 413)

    async def pieces():
        for _ in range(9):
            await asyncio.sleep(0)
            yield b"a" * 50

    check(post(app, PATH, content=pieces(), headers=JSON), 413)


@pytest.mark.parametrize(
    "path", ["/nowhere", "/v1", "/v1/embeddings", "/v1/responses", "/v1/completions/"]
)
def test_no_such_path(call, path):
    assert path in check(call(path, {}), 404)["message"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "TRACE", "OPTIONS"])
def test_wrong_method(call, method):
    response = call(PATH, {}, method=method)
    check(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("state", ["restarting", "stopped"])
def test_engine_away(call, engine, state):
    engine.state = state
    response = call(PATH, ASK)
    check(response, 503)
    assert ("retry-after" in response.headers) == (state == "restarting")
    check(call("/health"), 503)


def test_stream_options_need_a_stream(call):
    error = check(call(PATH, {**ASK, "stream_options": {"include_usage": True}}), 400)
    assert error["param"] == "stream_options"


def test_request_ids(call):
    assert call(PATH, ASK, headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    made = [call(PATH, {}).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
