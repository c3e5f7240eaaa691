"""Whatever one client sends, it is told what was wrong, and the stream of another goes on."""

import json
import threading
import time

import pytest

pytestmark = pytest.mark.weights

COMPLETIONS, CHAT, TOKENIZE = "/v1/completions", "/v1/chat/completions", "/v1/tokenize"
UNKNOWN_TOKEN = 49152  # the demo's vocabulary ends before it


class Bystander:
    """Streams one request again and again; its text must never change."""

    def __init__(self, server) -> None:
        self.server = server
        self.pieces = 0
        self.texts: list[str] = []
        self.failure: BaseException | None = None
        self.leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        body = {"prompt": "A long story:", "max_tokens": 60, "seed": 9, "ignore_eos": True}
        try:
            while not self.leaving.is_set():
                with self.server.stream(COMPLETIONS, body) as events:
                    self.texts.append("".join(self._text(event) for event in events))
        except BaseException as failure:
            self.failure = failure

    def _text(self, event: str) -> str:
        self.pieces += 1
        return "" if event == "[DONE]" else json.loads(event)["choices"][0]["text"]

    def goes_on(self) -> None:
        """Return once the stream has moved."""
        seen, deadline = self.pieces, time.monotonic() + 20
        while self.pieces == seen:
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, "the stream of another client stands still"
            time.sleep(0.002)

    def leave(self) -> None:
        self.leaving.set()
        self._thread.join()
        assert self.failure is None, self.failure
        assert len(set(self.texts)) == 1, "a bad request of another changed the text"


@pytest.fixture(scope="module")
def bystander(server):
    made = Bystander(server)
    yield made
    made.leave()


def prompt(**fields) -> bytes:
    return json.dumps({"prompt": "Hi", "max_tokens": 2, **fields}).encode()


def chat(*messages, **fields) -> bytes:
    return json.dumps({"messages": messages, "max_tokens": 2, **fields}).encode()


REFUSED_BODIES = {
    "invalid UTF-8": (b'{"prompt": "\xff\xfe"}', "not valid UTF-8 at byte 12"),
    "invalid JSON": (b'{"prompt": ', "not valid JSON"),
    "no body": (b"", "the body is empty"),
    "a NUL": (b"\0", "not valid JSON"),
    "a list": (b"[]", "must be a JSON object"),
    "a string": (b'"prompt"', "must be a JSON object"),
    "deep nesting": (b"[" * 200_000, "nested too deeply"),
    "deep prompt": (b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
    "half a character": (b'{"prompt": "\\ud800"}', "lone surrogate"),
    "half a character to stop at": (b'{"prompt": "a", "stop": "\\ud800"}', "lone surrogate"),
    "half a character for a name": (b'{"prompt": "a", "\\ud800": 1}', "not valid Unicode"),
    "a number of 5000 digits": (b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}", "digits"),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', "temperature must be a finite number"),
    "Infinity": (b'{"prompt": "a", "top_p": -Infinity}', "top_p must be a finite number"),
    "beyond float": (b'{"prompt": "a", "min_p": 1e999}', "min_p must be a finite number"),
    "no prompt": (b'{"max_tokens": 1}', "prompt is missing"),
    "empty prompt": (prompt(prompt=""), "the prompt is empty"),
    "empty list": (prompt(prompt=[]), "prompt: must be a string"),
    "an empty prompt of several": (prompt(prompt=["a", ""]), "the prompt is empty"),
    "text and tokens": (prompt(prompt=["a", 1]), "prompt: must be a string"),
    "token below zero": (prompt(prompt=[5, -1]), "token -1"),
    "token out of range": (prompt(prompt=[UNKNOWN_TOKEN]), f"token {UNKNOWN_TOKEN}"),
    "token of 64 bits": (prompt(prompt=[2**63]), f"token {2**63}"),
    "token of more": (prompt(prompt=[2**70]), "no token"),
    "bias out of range": (prompt(logit_bias={UNKNOWN_TOKEN: 1}), "logit_bias names token"),
    "bias of more": (prompt(logit_bias={2**70: 1}), "64 bits"),
    "stop token out of range": (prompt(stop_token_ids=[UNKNOWN_TOKEN]), "stop_token_ids names"),
    "endless stop strings": (prompt(stop=["x" * 300_000]), "stop strings have 300000 characters"),
    "max_tokens beyond context": (prompt(max_tokens=5000), "maximum context length"),
    "max_tokens of more": (prompt(max_tokens=2**70), "64 bits"),
    "max_tokens below zero": (prompt(max_tokens=-1), "max_tokens"),
    "max_tokens zero": (prompt(max_tokens=0), "max_tokens must be at least 1 without echo"),
    "seed of more": (prompt(seed=2**64), "seed"),
    "too many choices": (prompt(n=1025), "n: input should be less than or equal to 1024"),
    "prompt beyond context": (prompt(prompt="word " * 3000), "maximum context length"),
    "a prompt of 30 MB": (prompt(prompt="a " * (15 << 20)), "maximum context length"),
    "too many prompts": (prompt(prompt=["a"] * 1025), "at most 1024"),
    "wrong type": (prompt(temperature="hot"), "temperature"),
}


@pytest.mark.parametrize("name", REFUSED_BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(server, bystander, name, stream):
    body, reason = REFUSED_BODIES[name]
    if stream and body.startswith(b'{"'):
        body = b'{"stream": true, ' + body[1:]
    answer = server.request("POST", COMPLETIONS, body)
    assert answer.status == 400, answer.body[:500]
    reason = reason.replace("byte 12", "byte 28") if stream else reason
    assert reason in answer.error["message"]
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert len(answer.body) < 600
    bystander.goes_on()


USER = {"role": "user", "content": "Hi"}
REFUSED_CHATS = {
    "no messages": (b"{}", "messages is missing"),
    "empty messages": (chat(), "messages"),
    "messages as text": (b'{"messages": "Hi"}', "messages"),
    "a role nobody knows": (chat({"role": "wizard", "content": "Hi"}), "messages[0].role"),
    "no role": (chat({"content": "Hi"}), "messages[0].role is missing"),
    "a number for content": (chat({"role": "user", "content": 5}), "messages[0].content"),
    "an image": (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
        "reads text only",
    ),
    "half a character": (b'{"messages": [{"role": "user", "content": "\\udfff"}]}', "surrogate"),
    "too long": (chat({"role": "user", "content": "word " * 3000}), "maximum context length"),
    "top_logprobs alone": (chat(USER, top_logprobs=2), "top_logprobs needs logprobs"),
    "tools": (chat(USER, tools=[{"type": "function", "function": {"name": "f"}}]), "tools is not"),
}


@pytest.mark.parametrize("name", REFUSED_CHATS)
def test_refused_chat(server, bystander, name):
    body, reason = REFUSED_CHATS[name]
    answer = server.request("POST", CHAT, body)
    assert answer.status == 400, answer.body[:500]
    assert reason in answer.error["message"]
    bystander.goes_on()


def test_wrong_content_type(server, bystander):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = server.request("POST", COMPLETIONS, prompt(), {"Content-Type": kind})
        assert answer.status == 400
        assert kind in answer.error["message"]
    bystander.goes_on()


def test_huge_body(server, bystander):
    answer = server.request("POST", COMPLETIONS, b'{"prompt": "' + b"a" * (33 << 20) + b'"}')
    assert answer.status == 413
    assert "larger than" in answer.error["message"]
    bystander.goes_on()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/models/%00", 404),
        ("GET", COMPLETIONS, 405),
        ("DELETE", "/v1/models", 405),
        ("PATCH", CHAT, 405),
    ],
)
def test_unknown_routes_and_methods(server, bystander, method, path, status):
    answer = server.request(method, path)
    assert answer.status == status
    assert answer.error["message"]
    bystander.goes_on()


ODD_BUT_FINE = {
    "NULs": prompt(prompt="\0\0a\0"),
    "a byte order mark": b"\xef\xbb\xbf" + prompt(),
    "twice the same name": b'{"prompt": "a", "prompt": "b", "max_tokens": 1}',
    "10 000 stop strings": prompt(stop=[f"stop{i}" for i in range(10_000)]),
    "a large top_k": prompt(top_k=10**9),
    "a temperature near infinity": prompt(temperature=1e30),
    "a temperature near zero": prompt(temperature=1e-30),
    "penalties without measure": prompt(repetition_penalty=1e30),
    "min_tokens above max_tokens": prompt(min_tokens=50),
    "unknown fields": prompt(**{"frobnicate": 1, "\u00fc\r\nX-Evil: 1": 2}),
}


@pytest.mark.parametrize("name", ODD_BUT_FINE)
def test_odd_but_fine(server, bystander, name):
    answer = server.request("POST", COMPLETIONS, ODD_BUT_FINE[name])
    assert answer.status == 200, answer.body[:500]
    assert "x-evil" not in answer.headers
    bystander.goes_on()


def test_long_texts_are_tokenised_aside(server, bystander):
    """A megabyte takes half a second of one core, during which the stream must move."""
    before = bystander.pieces
    answer = server.request("POST", TOKENIZE, {"prompt": "a b " * (1 << 18)})
    assert answer.json["count"] > 1 << 18
    assert bystander.pieces - before > 3
    assert server.request("POST", TOKENIZE, {"prompt": "a" * 5_000_000}).status == 400


def test_no_defect_was_logged(server):
    assert "Traceback" not in server.log.read_text()
