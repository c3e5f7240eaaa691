"""Over real sockets: bytes, clients that leave, and the official client."""

import socket
import time
from urllib.parse import urlsplit

import openai
import pytest

MODEL = "fake/model"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def wait_for(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def send(url, body):
    """A connection on which a request was sent."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname, place.port))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_bytes_of_a_stream(url):
    with send(url, b'{"prompt": "a", "max_tokens": 2, "stream": true}') as connection:
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    assert b"content-length" not in head.lower()
    assert b"content-type: text/event-stream" in head.lower()
    lines = [line for line in body.split(b"\r\n") if line.startswith(b"data: ")]
    assert [line[-2:] for line in lines] == [b"\n\n"] * 3
    assert lines[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize("stream", ["true", "false"])
def test_leaving_aborts(url, engine, stream):
    engine.text, engine.delay = "x" * 400, 0.05
    body = f'{{"prompt": "a", "max_tokens": 400, "stream": {stream}}}'.encode()
    connection = send(url, body)
    wait_for(lambda: engine.running == 1)
    connection.close()
    wait_for(lambda: engine.running == 0)
    assert engine.aborted == 1


def test_leaving_aborts_every_prompt(url, engine):
    engine.text, engine.delay = "x" * 400, 0.05
    connection = send(url, b'{"prompt": ["a", "b", "c"], "max_tokens": 400, "stream": true}')
    wait_for(lambda: engine.running == 3)
    connection.recv(100)
    connection.close()
    wait_for(lambda: engine.running == 0)
    assert engine.aborted == 3


def test_leaving_before_the_first_token(url, engine):
    engine.delay = 30
    connection = send(url, b'{"prompt": "a", "stream": true}')
    wait_for(lambda: engine.running == 1)
    connection.close()
    wait_for(lambda: engine.running == 0)


def test_official_client_chats(client):
    answer = client.chat.completions.create(**ASK, n=2, logprobs=True, top_logprobs=1)
    assert [choice.message.content for choice in answer.choices] == ["Hello, world!"] * 2
    assert answer.choices[1].logprobs.content[0].top_logprobs[0].token == "H"
    assert answer.usage.completion_tokens == 28


def test_official_client_streams(client):
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options=options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == "Hello, world!"
    assert chunks[-1].usage.completion_tokens == 14
    with client.chat.completions.stream(**ASK) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello, world!"


def test_official_client_completes(client):
    answer = client.completions.create(model=MODEL, prompt="a", echo=True, logprobs=2, max_tokens=2)
    assert answer.choices[0].text == "aHe"
    assert answer.choices[0].logprobs.token_logprobs == [None, -0.5, -0.5, -0.5]
    stream = client.completions.create(model=MODEL, prompt="a", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "Hello, world!"


def test_official_client_understands_errors(client, engine):
    with pytest.raises(openai.NotFoundError, match="gpt-9") as caught:
        client.chat.completions.create(**{**ASK, "model": "gpt-9"})
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        client.chat.completions.create(**ASK, temperature=-1)
    assert caught.value.param == "temperature"
    engine.error, engine.error_at = RuntimeError("lost"), 2
    with pytest.raises(openai.APIError, match="lost"):
        list(client.chat.completions.create(**ASK, stream=True))


def test_official_client_lists_models(client):
    assert [model.id for model in client.models.list()] == [MODEL]
