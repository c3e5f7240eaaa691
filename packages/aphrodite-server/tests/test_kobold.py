"""The Kobold API, against an engine that says "Hello, world!"."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest
from aphrodite_server.app import create_app
from aphrodite_server.settings import Settings

PATH, STREAM = "/api/v1/generate", "/api/extra/generate/stream"
CHECK, ABORT = "/api/extra/generate/check", "/api/extra/abort"
IGNORED, CLAMPED = "x-aphrodite-ignored-fields", "x-aphrodite-clamped-fields"

# What Kobold Lite sends, with its samplers off.
LITE = {
    "n": 1,
    "max_context_length": 12288,
    "max_length": 50,
    "rep_pen": 1,
    "temperature": 1,
    "top_p": 1,
    "top_k": 0,
    "top_a": 0,
    "typical": 1,
    "tfs": 1,
    "rep_pen_range": 360,
    "rep_pen_slope": 0.7,
    "sampler_order": [6, 0, 1, 3, 4, 2, 5],
    "memory": "",
    "trim_stop": True,
    "genkey": "KCPP1234",
    "min_p": 0,
    "dynatemp_range": 0,
    "dynatemp_exponent": 1,
    "smoothing_factor": 0,
    "nsigma": 0,
    "mirostat": 0,
    "mirostat_tau": 5,
    "mirostat_eta": 0.1,
    "xtc_threshold": 0.2,
    "xtc_probability": 0,
    "dry_multiplier": 0,
    "dry_base": 1.75,
    "dry_allowed_length": 2,
    "dry_penalty_last_n": 360,
    "dry_sequence_breakers": ["\n", ":", '"', "*"],
    "banned_tokens": [],
    "render_special": False,
    "logprobs": False,
    "presence_penalty": 0,
    "logit_bias": {},
    "grammar": "",
    "images": [],
    "prompt": "\nUser: Hi\nBot:",
    "quiet": True,
    "stop_sequence": ["User:", "\nUser "],
    "use_default_badwordsids": False,
    "bypass_eos": False,
}


def lite_events(text):
    """The events as Kobold Lite finds them: two lines, each ended by a bare line feed."""
    *parts, rest = text.split("\n\n")
    assert rest == ""
    assert "\r" not in text
    found = []
    for part in parts:
        kind, data = part.split("\n")
        assert data.startswith("data: ")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def params(engine):
    return engine.seen[-1][1]


def prompt(engine):
    return engine.seen[-1][0]


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("path", [PATH, "/api/latest/generate"])
def test_answer(call, path):
    response = call(path, {"prompt": "Say hello"})
    assert response.json() == {"results": [{"text": "Hello, world!", "finish_reason": "stop"}]}
    assert IGNORED not in response.headers
    assert CLAMPED not in response.headers


def test_several_answers(call):
    results = call(PATH, {"prompt": "a", "n": 2, "max_length": 5}).json()["results"]
    assert results == [{"text": "Hello", "finish_reason": "length"}] * 2


@pytest.mark.parametrize("path", [PATH, STREAM])
@pytest.mark.parametrize("strict", [False, True])
def test_kobold_lite(engine, post, path, strict):
    response = post(create_app(engine, Settings(strict_fields=strict)), path, LITE)
    assert response.status_code == 200, response.text
    assert response.headers[CLAMPED] == "max_context_length=512"
    assert response.headers.get(IGNORED) == "quiet"
    made = params(engine)
    assert made.stages == ()
    assert (made.n, made.max_tokens, made.seed) == (1, 50, None)
    assert made.stop == ("User:", "\nUser ")
    assert not made.include_stop_str_in_output
    assert not made.ignore_eos
    assert made.min_tokens == 0


def test_stream(call):
    response = call(STREAM, {"prompt": "a"})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = lite_events(response.text)
    assert {kind for kind, _ in events} == {"message"}
    assert len(events) > 5, "piece by piece"
    assert "".join(data["token"] for _, data in events) == "Hello, world!"
    assert [data["finish_reason"] for _, data in events] == [None] * (len(events) - 1) + ["stop"]


def test_a_stream_has_one_choice(call):
    response = call(STREAM, {"prompt": "a", "n": 2})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "n"


def test_errors_have_the_form_that_each_client_reads(call):
    response = call(PATH, {"prompt": "a", "temperature": -1})
    assert response.status_code == 400
    body = response.json()
    assert body["error"]["param"] == "temperature"
    assert body["detail"] == {"msg": body["error"]["message"], "type": "BadRequestError"}
    assert "detail" in call("/api/v1/nothing").json()
    assert "detail" not in call("/v1/nothing").json()


def test_an_error_in_a_stream_is_an_event(call, engine):
    engine.error, engine.error_at = RuntimeError("lost"), 2
    *messages, (kind, data) = lite_events(call(STREAM, {"prompt": "a"}).text)
    assert "".join(data["token"] for _, data in messages) == "He"
    assert kind == "error"
    assert "lost" in data["error"]["message"]
    assert "lost" in data["detail"]["msg"]


def test_an_error_before_a_stream_is_a_status(call, engine):
    engine.error = RuntimeError("lost")
    assert call(STREAM, {"prompt": "a"}).status_code == 500


# Lengths.


def test_a_prompt_that_is_too_long_loses_its_beginning(call, engine):
    response = call(PATH, {"prompt": "x" * 600 + "end", "max_length": 100})
    assert prompt(engine) == [256, *b"x" * 408, *b"end"]
    assert params(engine).max_tokens == 100
    assert response.headers[CLAMPED] == "prompt=411"


def test_a_smaller_context_is_kept(call, engine):
    body = {"prompt": "0123456789", "max_length": 10, "max_context_length": 16}
    assert call(PATH, body).headers[CLAMPED] == "prompt=5"
    assert prompt(engine) == [256, *b"56789"]


def test_memory_stays(call, engine):
    body = {"prompt": "0123456789", "memory": "abc", "max_length": 8, "max_context_length": 16}
    call(PATH, body)
    assert prompt(engine) == [256, *b"abc", *b"6789"]
    response = call(PATH, {**body, "memory": "abcdefghijk"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "memory"


@pytest.mark.parametrize(
    ("text", "length", "kept"), [("x" * 9, 502, 9), ("x" * 300, 256, 255), ("x" * 600, 256, 255)]
)
def test_a_length_that_leaves_no_room_is_lowered(call, engine, text, length, kept):
    response = call(PATH, {"prompt": text, "max_length": 4000, "max_context_length": 4000})
    assert response.status_code == 200
    assert params(engine).max_tokens == length
    assert len(prompt(engine)) == 1 + kept
    told = f"max_context_length=512, max_length={length}"
    assert response.headers[CLAMPED] == told + (f", prompt={kept}" if kept < len(text) else "")


def test_length_of_a_request_that_names_none(call, engine):
    call(PATH, {"prompt": "a", "max_length": None})
    assert params(engine).max_tokens == 180


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_length", 0), ("max_context_length", 1), ("max_length", "many"), ("prompt", None)],
)
def test_lengths_that_mean_nothing_are_refused(call, name, value):
    response = call(PATH, {"prompt": "a", name: value})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == name


# Requests that run.


@pytest.fixture
def ask(url):
    """Sends a request in a thread; its response is in the list then."""
    threads = []

    def begin(path, body):
        answers = []

        def go():
            answers.append(httpx.post(url + path, json=body, timeout=10))

        threads.append(threading.Thread(target=go))
        threads[-1].start()
        return answers

    yield begin
    for thread in threads:
        thread.join()


@pytest.fixture
def slow(engine):
    engine.text, engine.delay = "x" * 400, 0.02
    return engine


@pytest.mark.parametrize("body", [{"genkey": "mine"}, {}])
def test_abort(ask, url, slow, body):
    answers = ask(PATH, {"prompt": "a", "max_length": 400, **body})
    wait_for(lambda: slow.running == 1)
    assert httpx.post(url + ABORT, json={"genkey": "other"}).json() == {"success": False}
    wait_for(lambda: httpx.post(url + CHECK, json=body).json()["results"][0]["text"])
    if body:
        assert httpx.get(url + CHECK, params=body).json()["results"][0]["text"].startswith("x")
        assert httpx.get(url + CHECK).json() == {"results": [{"text": ""}]}
    assert httpx.post(url + ABORT, json=body).json() == {"success": True}
    wait_for(lambda: answers)
    (result,) = answers[0].json()["results"]
    assert result["finish_reason"] == "abort"
    assert set(result["text"]) == {"x"}
    assert len(result["text"]) < 400
    assert (slow.running, slow.aborted) == (0, 1)
    assert httpx.post(url + ABORT, json=body).json() == {"success": False}
    assert httpx.post(url + CHECK, json=body).json() == {"results": [{"text": ""}]}


def test_abort_without_a_body(ask, url, slow):
    answers = ask(PATH, {"prompt": "a", "max_length": 400})
    wait_for(lambda: slow.running == 1)
    assert httpx.post(url + ABORT).json() == {"success": True}
    wait_for(lambda: answers)
    assert answers[0].json()["results"][0]["finish_reason"] == "abort"


def test_abort_of_a_stream(ask, url, slow):
    answers = ask(STREAM, {"prompt": "a", "max_length": 400, "genkey": "mine"})
    wait_for(lambda: slow.running == 1)
    wait_for(lambda: httpx.get(url + CHECK, params={"genkey": "mine"}).json()["results"][0]["text"])
    httpx.post(url + ABORT, json={"genkey": "mine"})
    wait_for(lambda: answers)
    events = lite_events(answers[0].text)
    assert events[-1] == ("message", {"token": "", "finish_reason": "abort"})
    assert slow.aborted == 1


def test_abort_before_the_first_token(ask, url, engine):
    engine.delay = 30
    answers = ask(STREAM, {"prompt": "a", "genkey": "mine"})
    wait_for(lambda: engine.running == 1)
    httpx.post(url + ABORT, json={"genkey": "mine"})
    wait_for(lambda: answers)
    assert lite_events(answers[0].text) == [("message", {"token": "", "finish_reason": "abort"})]


def test_the_end_is_counted_once_and_nothing_is_left(call, engine):
    call(PATH, {"prompt": "a", "genkey": "k"})
    call(STREAM, {"prompt": "a", "genkey": "k"})
    assert (engine.running, engine.aborted) == (0, 0)
    metrics = call("/metrics").text
    assert (
        'aphrodite:e2e_request_latency_seconds_count{engine="0",model_name="fake/model"} 2.0'
        in (metrics)
    )
    assert call(ABORT, {"genkey": "k"}).json() == {"success": False}


@pytest.mark.parametrize("path", [PATH, STREAM])
def test_leaving_aborts(url, slow, path):
    place = urlsplit(url)
    body = b'{"prompt": "a", "max_length": 400}'
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((place.hostname, place.port))
    connection.sendall(head.encode() + body)
    wait_for(lambda: slow.running == 1)
    connection.close()
    wait_for(lambda: slow.running == 0)
    assert slow.aborted == 1


# The rest.


def test_what_clients_ask_first(call):
    assert call("/api/v1/model").json() == {"result": "aphrodite/fake/model"}
    assert call("/api/v1/info/version").json() == {"result": "1.2.4"}
    assert call("/api/extra/version").json() == {"result": "KoboldCpp", "version": "1.63"}
    for path in ("v1/config/max_length", "v1/config/max_context_length"):
        assert call(f"/api/{path}").json() == {"value": 512}
    assert call("/api/extra/true_max_context_length").json() == {"value": 512}
    assert call("/api/latest/model").json() == {"result": "aphrodite/fake/model"}
    assert call("/api/v1/config/soft_prompts_list").json() == {"values": []}
    assert call("/api/v1/config/soft_prompt").json() == {"value": ""}
    assert call("/api/extra/preloadstory").json() == {}


def test_soft_prompts(call):
    path = "/api/v1/config/soft_prompt"
    assert call(path, {"value": ""}, method="PUT").json() == {}
    assert call(path, {"value": "some.zip"}, method="PUT").status_code == 400


def test_token_count(call):
    assert call("/api/extra/tokencount", {"prompt": "ab"}).json() == {
        "value": 3,
        "ids": [256, 97, 98],
    }
    assert call("/api/extra/tokencount", {"prompt": "ab", "special": False}).json()["value"] == 2


def test_browsers_may_ask(call):
    headers = {
        "origin": "http://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    asked = call(PATH, method="OPTIONS", headers=headers)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "*"
    for path, fields in ((PATH, {}), (STREAM, {}), (PATH, {"temperature": -1})):
        response = call(path, {"prompt": "a", **fields}, headers={"origin": headers["origin"]})
        assert response.headers["access-control-allow-origin"] == "*"
        assert CLAMPED in response.headers["access-control-expose-headers"].lower()


def test_keys_guard_it(engine, post):
    app = create_app(engine, Settings(api_keys=("first",)))
    assert post(app, PATH, {"prompt": "a"}).status_code == 401
    opened = post(app, PATH, {"prompt": "a"}, headers={"authorization": "Bearer first"})
    assert opened.status_code == 200


def test_it_is_documented(call):
    schema = call("/openapi.json").json()
    assert {PATH, STREAM, ABORT} <= schema["paths"].keys()
    fields = schema["components"]["schemas"]["KoboldRequest"]["properties"]
    assert "Kobold's numbers" in fields["sampler_order"]["description"]
    assert "rep_pen" in fields["repetition_penalty"]["description"]
    assert "stopping_strings" in fields["stop_sequence"]["description"]
