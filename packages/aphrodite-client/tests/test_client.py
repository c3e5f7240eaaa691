"""Both clients, against a server that remembers."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import aphrodite_client
import pytest
from aphrodite_client import AsyncClient, Client, SamplingFields

ROOT = Path(__file__).parents[1]
ASK = [{"role": "user", "content": "Name a colour."}]


@pytest.fixture
def client(server):
    with Client(server.url, max_retries=0) as client:
        yield client


def test_chat_fields_travel_in_the_body(client, server):
    answer = client.chat.completions.create(messages=ASK, temperature=0.5, min_p=0.1, n=1)
    assert answer.choices[0].message.content == "Red."
    path, _, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body == {
        "messages": ASK,
        "model": "default",
        "temperature": 0.5,
        "min_p": 0.1,
        "n": 1,
    }


def test_completion_fields_travel_in_the_body(client, server):
    fields = {"repetition_penalty": 1.1, "top_k": 40, "add_special_tokens": False}
    client.completions.create(prompt=[1, 2], model="m", echo=True, **fields)
    expected = {"prompt": [1, 2], "model": "m", "echo": True, **fields}
    assert server.seen[0][2] == expected


def test_newer_fields(client, server):
    client.completions.create(
        prompt="a", min_p=0.1, extra={"brand_new": 1, "min_p": 0.2}, extra_body={"other": 2}
    )
    body = server.seen[0][2]
    assert (body["brand_new"], body["min_p"], body["other"]) == (1, 0.2, 2)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, **fields: client.completions.create(prompt="a", **fields),
        lambda client, **fields: client.chat.completions.create(messages=ASK, **fields),
        lambda client, **fields: client.explain("a", **fields),
    ],
)
def test_a_keyword_that_nobody_knows_is_an_error(client, server, ask):
    with pytest.raises(TypeError, match=r"'temprature' is no keyword.*did you mean 'temperature'"):
        ask(client, temprature=0.5)
    assert not server.seen


def test_streams(client):
    chunks = client.completions.create(prompt="a", stream=True, min_p=0.1)
    assert [chunk.choices[0].text for chunk in chunks] == ["Red."]


@pytest.mark.parametrize("name", sorted(SamplingFields.__annotations__))
def test_every_sampling_field_reaches_the_server(client, server, name):
    value = {1: 2} if name == "logit_bias" else 1
    client.chat.completions.create(messages=ASK, **{name: value})
    assert name in server.seen[0][2]


def test_keys(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-you")
    with Client(server.url) as client:
        client.tokenize("a")
    with Client(server.url, api_key="mine") as client, client.with_options(timeout=5) as other:
        assert isinstance(other, Client)
        other.tokenize("a")
    headers = [seen[1]["authorization"] for seen in server.seen]
    assert headers == ["Bearer none", "Bearer mine"]


def test_tokens(client, server):
    assert client.tokenize("Red.", add_special_tokens=False).tokens == [5, 6]
    assert client.tokenize(ASK).count == 2
    assert client.detokenize([5, 6]) == "Red."
    bodies = [seen[2] for seen in server.seen]
    assert bodies[0]["add_special_tokens"] is False
    assert bodies[1]["messages"] == ASK
    assert bodies[2] == {"tokens": [5, 6]}


def test_samplers(client):
    found = client.samplers()
    (sampler,) = found.samplers
    assert (sampler.name, sampler.number, sampler.fields[0].maximum) == ("min_p", 2, 1)
    assert list(sampler.fields[0].aliases) == []
    assert found.presets["calm"] == {"temperature": 0.3}
    assert found.model_defaults == {"top_k": 20}


def test_explanations(client, server):
    found = client.explain("A colour:", min_p=0.05, seed=3, top=5, extra={"brand_new": 1})
    assert found.token.text == "Red"
    assert found.samplers[0].candidates.after == 1
    assert found.samplers[0].fields == {"min_p": 0.05}
    assert found.final.tokens[0].probability == 1
    client.explain([5, 6])
    client.explain(message for message in ASK)
    bodies = [seen[2] for seen in server.seen]
    fields = {"min_p": 0.05, "seed": 3, "top": 5, "brand_new": 1}
    assert bodies == [
        {"prompt": "A colour:", "model": "default", **fields},
        {"prompt": [5, 6], "model": "default"},
        {"messages": ASK, "model": "default"},
    ]


def test_health(client, server):
    assert client.health()
    assert server.seen[0][0] == "/health"
    server.healthy = False
    assert not client.health()
    with Client("http://127.0.0.1:9/v1") as nobody:
        assert not nobody.health()


def test_asynchronous_client(server):
    async def go():
        async with AsyncClient(server.url, max_retries=0) as client:
            answer = await client.chat.completions.create(messages=ASK, min_p=0.1)
            assert answer.choices[0].message.content == "Red."
            stream = await client.completions.create(prompt="a", stream=True, top_k=5)
            assert [chunk.choices[0].text async for chunk in stream] == ["Red."]
            assert (await client.tokenize("Red.")).tokens == [5, 6]
            assert await client.detokenize([5, 6]) == "Red."
            assert (await client.samplers()).samplers[0].name == "min_p"
            assert (await client.explain(ASK, min_p=0.05)).token.id == 5
            assert await client.health()

    asyncio.run(go())
    assert [seen[2].get("min_p") for seen in server.seen[:1]] == [0.1]


def test_readme_runs(server, capsys):
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert "http://localhost:2242/v1" in example
    # The example's stream and answer come in the same shape from this server.
    exec(example.replace("http://localhost:2242/v1", server.url), {})
    assert capsys.readouterr().out == "Red.\nRed.2\nmin_p 64 1\n"


def test_needs_neither_torch_nor_the_engine():
    code = (
        "import sys, aphrodite_client\n"
        "ours = {'torch', 'aphrodite_engine', 'aphrodite_server', 'aphrodite_kernels'}\n"
        "sys.exit(str(ours & set(sys.modules)) if ours & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_surface():
    assert sorted(aphrodite_client.__all__) == aphrodite_client.__all__
    for name in aphrodite_client.__all__:
        assert hasattr(aphrodite_client, name)
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert aphrodite_client.__version__ == version[1]
