"""Keywords of requests: the sampling fields, and OpenAI's own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from openai import Timeout
from openai.types.chat import ChatCompletionStreamOptionsParam

from aphrodite_client.wire.sampling import SamplingFields


class GenerationFields(SamplingFields, total=False):
    """What both endpoints take."""

    n: int | None
    """Completions of each prompt."""
    max_tokens: int | None
    """Most tokens to generate."""
    stop: str | Sequence[str] | None
    """Texts that end the completion; they are cut off."""
    seed: int | None
    """Draws are the same for the same seed; None: drawn at random."""
    stream_options: ChatCompletionStreamOptionsParam | None
    """What a stream carries besides text."""
    priority: int | None
    """Lower runs first, where the server runs by priority."""
    user: str
    """Ignored by the server."""
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, object] | None
    extra_body: Mapping[str, object] | None
    timeout: float | Timeout | None


class CompletionFields(GenerationFields, total=False):
    """Keywords of `completions.create`."""

    echo: bool | None
    """Begin the text with the prompt."""
    logprobs: int | None
    """Log-probabilities of the chosen token and this many likeliest ones."""
    add_special_tokens: bool | None
    """Put begin-of-text before a prompt that is text (default)."""


class ChatFields(GenerationFields, total=False):
    """Keywords of `chat.completions.create`."""

    max_completion_tokens: int | None
    """Newer name of max_tokens; wins over it."""
    logprobs: bool | None
    """Return log-probabilities."""
    top_logprobs: int | None
    """Of this many likeliest tokens, too."""
    tools: Iterable[Any]
    tool_choice: Any
    parallel_tool_calls: bool
    response_format: Any
    add_generation_prompt: bool | None
    """End the prompt with the opening of the assistant's turn (default)."""
    continue_final_message: bool | None
    """Let the model go on inside the last message."""
    chat_template_kwargs: Mapping[str, object] | None
    """Further values for the chat template."""


class ExplainFields(SamplingFields, total=False):
    """Keywords of `explain`."""

    top: int | None
    """Tokens told of each sampler; None: 20."""
    seed: int | None
    """The draw is the same for the same seed; None: drawn at random."""
    add_special_tokens: bool | None
    """Put begin-of-text before a prompt that is text (default)."""
    add_generation_prompt: bool | None
    """End a conversation with the opening of the assistant's turn (default)."""
    continue_final_message: bool | None
    """Let the model go on inside a conversation's last message."""
    chat_template_kwargs: Mapping[str, object] | None
    """Further values for the chat template."""
    priority: int | None
    """Lower runs first, where the server runs by priority."""
