"""The synchronous client.

Everything of `openai.OpenAI`, with the sampling fields as keywords, and the endpoints that
OpenAI does not have.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Unpack, overload

import openai
from openai import Stream
from openai.resources.chat import Chat as OpenAIChat
from openai.resources.chat import Completions as OpenAIChatCompletions
from openai.resources.completions import Completions as OpenAICompletions
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam

from aphrodite_client.keywords import (
    DEFAULT_MODEL,
    DEFAULT_URL,
    Prompt,
    explain_body,
    health_url,
    sort_keywords,
    token_body,
)
from aphrodite_client.wire.bodies import ChatFields, CompletionFields, ExplainFields
from aphrodite_client.wire.samplers import Explanation, Samplers
from aphrodite_client.wire.tokens import Text, Tokens


class Completions(OpenAICompletions):
    """`completions`, with sampling fields."""

    @overload
    def create(
        self,
        *,
        prompt: Prompt,
        model: str = ...,
        stream: Literal[False] = ...,
        extra: Mapping[str, object] | None = ...,
        **fields: Unpack[CompletionFields],
    ) -> Completion: ...

    @overload
    def create(
        self,
        *,
        prompt: Prompt,
        model: str = ...,
        stream: Literal[True],
        extra: Mapping[str, object] | None = ...,
        **fields: Unpack[CompletionFields],
    ) -> Stream[Completion]: ...

    def create(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        prompt: Prompt,
        model: str = DEFAULT_MODEL,
        extra: Mapping[str, object] | None = None,
        **fields: Any,
    ) -> Completion | Stream[Completion]:
        """Continue prompts; `extra` holds fields newer than this client."""
        create = super().create
        sorted_fields = sort_keywords(create, CompletionFields, fields, extra)
        return create(model=model, prompt=prompt, **sorted_fields)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]


class ChatCompletions(OpenAIChatCompletions):
    """`chat.completions`, with sampling fields."""

    @overload
    def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str = ...,
        stream: Literal[False] = ...,
        extra: Mapping[str, object] | None = ...,
        **fields: Unpack[ChatFields],
    ) -> ChatCompletion: ...

    @overload
    def create(
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str = ...,
        stream: Literal[True],
        extra: Mapping[str, object] | None = ...,
        **fields: Unpack[ChatFields],
    ) -> Stream[ChatCompletionChunk]: ...

    def create(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        *,
        messages: Iterable[ChatCompletionMessageParam],
        model: str = DEFAULT_MODEL,
        extra: Mapping[str, object] | None = None,
        **fields: Any,
    ) -> ChatCompletion | Stream[ChatCompletionChunk]:
        """Answer a conversation; `extra` holds fields newer than this client."""
        create = super().create
        sorted_fields = sort_keywords(create, ChatFields, fields, extra)
        return create(model=model, messages=messages, **sorted_fields)  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]


class Chat(OpenAIChat):
    """`chat`, with sampling fields."""

    @cached_property
    def completions(self) -> ChatCompletions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Conversations."""
        return ChatCompletions(self._client)


class Client(openai.OpenAI):
    """A running Aphrodite server. Further options are those of `openai.OpenAI`."""

    def __init__(
        self, base_url: str = DEFAULT_URL, *, api_key: str | None = None, **options: Any
    ) -> None:
        # Without a key of ours, the official client would send OpenAI's from the environment.
        super().__init__(base_url=base_url, api_key=api_key or "none", **options)

    @cached_property
    def completions(self) -> Completions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Text that continues prompts."""
        return Completions(self)

    @cached_property
    def chat(self) -> Chat:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Conversations."""
        return Chat(self)

    def tokenize(
        self,
        text: str | Iterable[ChatCompletionMessageParam],
        *,
        add_special_tokens: bool = True,
        return_token_strs: bool = False,
    ) -> Tokens:
        """Tokens of a text, or of a conversation."""
        body = token_body(
            text, add_special_tokens=add_special_tokens, return_token_strs=return_token_strs
        )
        return self.post("/tokenize", body=body, cast_to=Tokens)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        body = {"tokens": list(tokens)}
        return (self.post("/detokenize", body=body, cast_to=Text)).prompt

    def samplers(self) -> Samplers:
        """Every sampler of the server with its fields, its presets, and the model's defaults."""
        return self.get("/samplers", cast_to=Samplers)

    def explain(
        self,
        text: str | Sequence[int] | Iterable[ChatCompletionMessageParam],
        *,
        model: str = DEFAULT_MODEL,
        extra: Mapping[str, object] | None = None,
        **fields: Unpack[ExplainFields],
    ) -> Explanation:
        """How each sampler changes the candidates for the next token of a text or conversation.

        `extra` holds fields newer than this client.
        """
        body = explain_body(text, model, fields, extra)
        return self.post("/samplers/explain", body=body, cast_to=Explanation)

    def health(self) -> bool:
        """The server answers, and so does its engine."""
        alone = self.with_options(max_retries=0)
        try:
            alone.get(health_url(self.base_url), cast_to=str)
        except (openai.APIConnectionError, openai.InternalServerError):
            return False
        return True
