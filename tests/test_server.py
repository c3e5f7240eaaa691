"""The whole road: real clients, the real server, a real model."""

import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aphrodite_client
import openai
import pytest
from aphrodite_engine import LLM, SamplingParams
from aphrodite_engine.sampling.catalog import stage_fields, stages_from

pytestmark = pytest.mark.weights

ROOT = Path(__file__).parents[1]
QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SAMPLERS = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "logit_bias": {"28": -100, "29": 5.5},
    "dynamic_temperature": True,
    "dynatemp_min": 0.5,
    "dynatemp_max": 1.5,
    "dynatemp_range": 0.2,
    "dynatemp_exponent": 1.1,
    "top_a": 0.05,
    "tfs": 0.97,
    "typical_p": 0.95,
    "epsilon_cutoff": 1.0,
    "eta_cutoff": 1.0,
    "nsigma": 3.0,
    "smoothing_factor": 0.1,
    "smoothing_curve": 1.2,
    "skew": 0.1,
    "xtc_threshold": 0.2,
    "xtc_probability": 0.3,
    "xtc_removes_ends": True,
    "mirostat_mode": 2,
    "mirostat_tau": 6.0,
    "mirostat_eta": 0.2,
    "adaptive_target": 0.3,
    "adaptive_decay": 0.8,
    "rep_pen_range": 512,
    "rep_pen_slope": 0.7,
    "repetition_decay": 64,
    "dry_multiplier": 0.8,
    "dry_base": 1.8,
    "dry_allowed_length": 3,
    "dry_range": 256,
    "dry_sequence_breakers": ["\n", ":"],
    "no_repeat_ngram_size": 5,
    "bad_words": ["purple"],
    "ban_eos_token": True,
    "banned_strings": ["a tapestry of"],
    "banned_strings_case_sensitive": True,
    "custom_token_bans": [40],
    "allowed_token_ids": list(range(3, 49152)),
    "token_ban_ranges": [[[41, 42], 0, 3]],
}
LIMITS = {
    "n": 2,
    "max_tokens": 5,
    "min_tokens": 3,
    "stop": ["\n\n", "Paris"],
    "stop_token_ids": [2],
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "seed": 7,
    "logprobs": 3,
    "prompt_logprobs": 2,
}


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_openai_chat(client):
    asked = {"model": "demo", "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**asked)
    assert "Paris" in whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    stream = client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 4, "piece by piece"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "stop"
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert 0 < last.usage.prompt_tokens_details.cached_tokens < last.usage.prompt_tokens


def test_openai_completions(client):
    drawn = {"n": 2, "max_tokens": 6, "seed": 3, "temperature": 1.5}
    made = client.completions.create(
        model="default", prompt=["One, two,", "Red, green,"], logprobs=2, **drawn
    )
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]
    assert made.choices[0].text != made.choices[1].text, "choices draw on their own"
    for choice in made.choices:
        scores = choice.logprobs
        assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.top_logprobs)
        assert scores.text_offset[0] == 0
        assert "".join(scores.tokens) == choice.text
    again = client.completions.create(model="default", prompt="Red, green,", **drawn)
    assert [choice.text for choice in again.choices] == [c.text for c in made.choices[2:]]


def test_openai_errors(client):
    with pytest.raises(openai.NotFoundError, match="`gpt-5` does not exist"):
        client.chat.completions.create(model="gpt-5", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
        client.completions.create(model="demo", prompt="word " * 2000, stream=True)
    assert caught.value.code == "context_length_exceeded"


def test_bare_socket(server):
    body = b'{"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0, "stream": true}'
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    status, _, rest = received.partition(b"\r\n")
    assert status == b"HTTP/1.1 200 OK"
    headers, _, chunked = rest.partition(b"\r\n\r\n")
    assert b"text/event-stream" in headers.lower()
    events = b"".join(chunked.split(b"\r\n")[1::2]).decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    choices = [json.loads(event.removeprefix("data: "))["choices"][0] for event in events[:-2]]
    assert choices[-1]["finish_reason"] == "length"
    whole = server.request("POST", COMPLETIONS, json.loads(body) | {"stream": False})
    assert "".join(choice["text"] for choice in choices) == whole.json["choices"][0]["text"]


def test_every_sampler(server):
    declared = {field.name for field in stage_fields()}
    assert declared == set(SAMPLERS), "give the new field a value here"
    plain = {"prompt": "The sky is", "max_tokens": 6, "seed": 1}
    for name, value in SAMPLERS.items():
        answer = server.request("POST", COMPLETIONS, {**plain, name: value})
        assert answer.status == 200, (name, answer.body)
    everything = server.request("POST", COMPLETIONS, {**plain, **SAMPLERS, **LIMITS})
    assert everything.status == 200, everything.body
    assert len(everything.json["choices"]) == 2
    assert "x-aphrodite-ignored-fields" not in everything.headers


def test_limits_are_kept(server):
    def complete(**fields):
        body = {"prompt": "One two three four", "temperature": 0, "max_tokens": 12, **fields}
        return server.request("POST", COMPLETIONS, body).json["choices"][0]

    plain = complete()
    assert plain["finish_reason"] == "length"
    forced = complete(logit_bias={"28": 100})  # a comma, for ever
    assert forced["text"] == "," * 12
    assert complete(logit_bias={"28": 100}, stop_token_ids=[28])["stop_reason"] == 28
    late = complete(logit_bias={"28": 100}, stop_token_ids=[28], min_tokens=3)
    assert len(late["text"]) > 3
    cut = complete(stop=plain["text"][5:9])
    assert cut["text"] == plain["text"][: plain["text"].index(plain["text"][5:9])]
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", plain["text"][5:9])
    for nothing in ("", [""], [], None):
        assert complete(stop=nothing) == plain


def test_one_seeded_text_on_every_road(server):
    prompt = "My favourite recipe for a cold evening:"
    samplers = {
        "temperature": 0.9,
        "top_p": 0.95,
        "min_p": 0.02,
        "repetition_penalty": 1.05,
        "nsigma": 2.5,
        "xtc_probability": 0.5,
        "xtc_threshold": 0.05,
        "dry_multiplier": 0.8,
        "dry_sequence_breakers": ["\n", "first of all"],
        "bad_words": ["soup", "cup of"],
        "sampler_priority": ["min_p", "top_p_top_k", "temperature"],
    }
    wanted = {"prompt": prompt, "max_tokens": 24, "seed": 11, **samplers}
    raw = server.request("POST", COMPLETIONS, wanted).json["choices"][0]["text"]
    with aphrodite_client.Client(base_url=f"{server.url}/v1") as client:
        assert client.completions.create(**wanted).choices[0].text == raw
        pieces = [
            chunk.choices[0].text for chunk in client.completions.create(**wanted, stream=True)
        ]
    assert "".join(pieces) == raw
    params = SamplingParams(max_tokens=24, seed=11, stages=stages_from(samplers))
    with LLM("demo", deterministic=True, max_model_len=256, max_num_seqs=2) as llm:
        assert llm.generate(prompt, params, progress=False)[0].text == raw


def test_sillytavern(server):
    saved = ROOT / "packages" / "aphrodite-server" / "tests" / "sillytavern.json"
    body = json.loads(saved.read_text()) | {"model": "demo"}
    with server.stream(COMPLETIONS, body) as events:
        *chunks, last = list(events)
    assert last == "[DONE]"
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    plain = server.request("POST", COMPLETIONS, body)
    assert "".join(choice["text"] for choice in choices) == plain.json["choices"][0]["text"]
    assert all(len(choice["logprobs"]["top_logprobs"][0]) >= 10 for choice in choices[:-1])
    assert "api_type" in plain.headers["x-aphrodite-ignored-fields"]
    counted = server.request("POST", "/v1/tokenize", {"model": "demo", "prompt": body["prompt"]})
    assert counted.json["count"] == plain.json["usage"]["prompt_tokens"]


def test_lm_eval(server):
    """Log-likelihoods of given tokens: echoed, scored, nothing or one token generated."""
    prompts = [[504, 6004, 282, 4649, 314], [504, 6004]]
    body = {"prompt": prompts, "echo": True, "logprobs": 1, "temperature": 0, "seed": 1234}
    nothing, one = (
        server.request("POST", COMPLETIONS, {**body, "max_tokens": count}).json for count in (0, 1)
    )
    assert nothing["usage"]["completion_tokens"] == 0
    for prompt, bare, more in zip(prompts, nothing["choices"], one["choices"], strict=True):
        scores = bare["logprobs"]
        assert scores["token_logprobs"][0] is scores["top_logprobs"][0] is None
        assert len(scores["tokens"]) == len(prompt)
        assert "".join(scores["tokens"]) == bare["text"]
        assert more["logprobs"]["token_logprobs"][:-1] == scores["token_logprobs"]
        best = more["logprobs"]["top_logprobs"][-1].values()
        assert more["logprobs"]["token_logprobs"][-1] == max(best)


def test_many_choices(server):
    body = {"prompt": "Roll a die:", "n": 100, "max_tokens": 3, "seed": 5}
    body |= {"temperature": 1, "top_p": 1}
    answer = server.request("POST", COMPLETIONS, body).json
    assert [choice["index"] for choice in answer["choices"]] == list(range(100))
    assert len({choice["text"] for choice in answer["choices"]}) > 20
    assert answer["usage"]["prompt_tokens"] < 10


@pytest.mark.parametrize("seed", [-(2**63), 2**63 - 1])
def test_seeds_at_the_limits(server, seed):
    body = {"prompt": "A", "max_tokens": 8, "seed": seed}
    first, second = (server.request("POST", COMPLETIONS, body) for _ in range(2))
    assert first.status == 200
    assert first.json["choices"] == second.json["choices"]


def test_long_prompts_beside_short_ones(server):
    def ask(place):
        words = " ".join(f"item{place}x{i}" for i in range(180 if place < 2 else 3))
        body = {"prompt": words, "max_tokens": 8, "temperature": 0}
        return server.request("POST", COMPLETIONS, body)

    with ThreadPoolExecutor(10) as pool:
        crowd = list(pool.map(ask, range(10)))
    assert crowd[0].json["usage"]["prompt_tokens"] > 600
    for place, answer in enumerate(crowd):
        assert answer.status == 200, answer.body
        assert answer.json["choices"][0]["text"] == ask(place).json["choices"][0]["text"]


@pytest.mark.parametrize("stream", [True, False])
def test_client_that_leaves_frees_its_blocks(server, stream):
    server.wait_until_idle()
    before = server.metrics()["generation_tokens_total"]
    body = {"prompt": "Count:", "max_tokens": 900, "ignore_eos": True, "n": 4}
    if stream:
        with server.stream(COMPLETIONS, body) as events:
            next(events)
            assert server.metrics()["num_requests_running"] > 0
    else:
        connection = server.connect()
        headers = {"Content-Type": "application/json"}
        connection.request("POST", COMPLETIONS, json.dumps(body), headers)
        timer = threading.Timer(0.5, connection.sock.shutdown, [socket.SHUT_RDWR])
        timer.start()
        with pytest.raises(OSError):
            connection.getresponse()
        timer.join()
    server.wait_until_idle()
    assert server.metrics()["generation_tokens_total"] - before < 4 * 900
    assert "Traceback" not in server.log.read_text()
    assert "POST /v1/completions 499" in server.log.read_text()
