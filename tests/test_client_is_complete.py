"""The client knows every field that the server takes, in both of its forms."""

import asyncio
import inspect
from typing import Unpack, get_overloads

import pytest
from aphrodite_client import AsyncClient, Client, SamplingFields, async_client, client
from aphrodite_client.wire.bodies import ChatFields, CompletionFields, ExplainFields
from aphrodite_engine.sampling.description import describe
from aphrodite_server.schema import ChatRequest, CompletionRequest, ExplainRequest

ARGUMENTS = {"model", "prompt", "messages", "stream"}
"""Of the methods themselves."""
VOID = {
    CompletionRequest: set[str](),
    ChatRequest: {"echo"},
    ExplainRequest: {"max_tokens", "n", "stop", "stop_token_ids", "stream_options"},
}
"""Fields that a body may hold and that ask for nothing there."""
METHODS = ("tokenize", "detokenize", "samplers", "explain", "health")


def described():
    """The fields that /v1/samplers tells of."""
    told = describe()
    return [*(field for sampler in told.samplers for field in sampler.fields), *told.order]


def keywords(fields):
    return fields.__required_keys__ | fields.__optional_keys__


def test_every_sampler_is_a_keyword():
    assert {field.name for field in described()} <= keywords(SamplingFields)


@pytest.mark.parametrize(
    ("request_type", "fields"),
    [
        (CompletionRequest, CompletionFields),
        (ChatRequest, ChatFields),
        (ExplainRequest, ExplainFields),
    ],
)
def test_every_field_of_a_body_is_a_keyword(request_type, fields):
    missing = set(request_type.model_fields) - ARGUMENTS - keywords(fields)
    assert missing <= VOID[request_type]
    assert keywords(SamplingFields) <= keywords(fields)


@pytest.mark.parametrize("module", [client, async_client])
def test_methods_take_them(module):
    taken = {
        name.removeprefix("Async"): [
            inspect.signature(each).parameters["fields"].annotation
            for each in get_overloads(kind.create)
        ]
        for name, kind in vars(module).items()
        if name.endswith("Completions") and kind.__module__ == module.__name__
    }
    assert taken == {
        "ChatCompletions": [Unpack[ChatFields]] * 2,
        "Completions": [Unpack[CompletionFields]] * 2,
    }


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_have_the_same_methods(name):
    one, other = (inspect.signature(getattr(each, name)) for each in (Client, AsyncClient))
    assert list(one.parameters.values()) == list(other.parameters.values())
    assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name))


@pytest.mark.weights
def test_the_server_honours_every_keyword(server):
    """Each at its default, by both clients; both read the same of the samplers."""

    async def go():
        async with AsyncClient(f"{server.url}/v1") as asynchronous:
            samplers = await asynchronous.samplers()
            fields = defaults_of(samplers)
            raw = asynchronous.completions.with_raw_response
            answer = await raw.create(prompt="A", max_tokens=2, seed=1, **fields)
            explained = await asynchronous.explain("A", seed=1, top=3, **fields)
            return samplers, answer, explained

    samplers, answer, explained = asyncio.run(go())
    with Client(f"{server.url}/v1") as synchronous:
        assert synchronous.samplers() == samplers
        fields = defaults_of(samplers)
        same = synchronous.completions.with_raw_response.create(
            prompt="A", max_tokens=2, seed=1, **fields
        )
        again = synchronous.explain("A", seed=1, top=3, **fields)
    assert fields.keys() == {field.name for field in described()}
    for each in (answer, same):
        assert "x-aphrodite-ignored-fields" not in each.headers
    assert same.parse().choices[0].text == answer.parse().choices[0].text
    assert again.token == explained.token


def defaults_of(samplers):
    fields = [field for sampler in samplers.samplers for field in sampler.fields]
    return {field.name: field.default for field in [*fields, *samplers.order]}
