"""From bodies to what the engine is asked: prompts as tokens, and `SamplingParams`.

It knows the wire and the engine's types; it knows nothing of HTTP or of how answers are written.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.errors import ContextLengthError, RequestError
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.text.chat_template import ChatTemplate
from aphrodite_engine.text.tokenizer import Tokenizer

from aphrodite_server.presets import Presets
from aphrodite_server.schema import (
    ChatRequest,
    CompletionRequest,
    ExplainRequest,
    GenerationRequest,
    Message,
    TokenizeRequest,
)

COMPLETION_TOKENS: Final = 16
"""max_tokens of /v1/completions, where a request names none; OpenAI's."""
EXPLAINED_TOKENS: Final = 20
"""top of /v1/samplers/explain, where a request names none."""
NO_PRESETS: Final = Presets()
MOST_PROMPTS: Final = 1024
MOST_CHARACTERS: Final = 4_000_000
"""Of a text to tokenise; about two seconds of one core."""
_LONG_TEXT = 20_000  # characters: about 5 ms of encoding, during which no stream would move
_PLAIN_LIMITS = (
    "n",
    "best_of",
    "use_beam_search",
    "length_penalty",
    "early_stopping",
    "min_tokens",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "seed",
    "prompt_logprobs",
)
T = TypeVar("T")


@dataclass(frozen=True)
class Prompt:
    """What is continued."""

    tokens: list[int]
    text: str | None = None
    """As it was sent; None: it came as tokens."""


def completion_params(body: CompletionRequest, presets: Presets = NO_PRESETS) -> SamplingParams:
    """RequestError: a value is out of range, or two contradict each other."""
    logprobs = None if body.logprobs is False else body.logprobs
    max_tokens = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise RequestError("max_tokens must be at least 1 without echo, found 0", "max_tokens")
    scores = {"prompt_logprobs": logprobs} if body.echo and logprobs is not None else {}
    return _params(body, presets, max_tokens=max_tokens, logprobs=logprobs, **scores)


def chat_params(body: ChatRequest, presets: Presets = NO_PRESETS) -> SamplingParams:
    """RequestError: a value is out of range, or two contradict each other."""
    if body.top_logprobs is not None and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs to be true", "top_logprobs")
    newer = body.max_completion_tokens
    name, max_tokens = (
        ("max_completion_tokens", newer) if newer is not None else ("max_tokens", body.max_tokens)
    )
    if max_tokens == 0:
        raise RequestError(f"{name} must be at least 1, found 0", name)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    return _params(body, presets, max_tokens=max_tokens, logprobs=logprobs)


def explain_params(body: ExplainRequest, presets: Presets = NO_PRESETS) -> SamplingParams:
    """RequestError: a value is out of range, or asks for more than one position."""
    if body.stream:
        raise RequestError("stream must be false here, found true", "stream")
    for name, single in (("n", 1), ("best_of", 1), ("use_beam_search", False)):
        if (value := body.given.get(name)) not in (None, single):
            raise RequestError(
                f"{name} is of several texts; leave it out here, found {value}", name
            )
    if body.given.get("prompt_logprobs") is not None:
        raise RequestError(
            "prompt_logprobs are not given here; ask /v1/completions", "prompt_logprobs"
        )
    top = EXPLAINED_TOKENS if body.top is None else body.top
    return _params(body, presets, max_tokens=1, explain=top)


def _params(body: GenerationRequest, presets: Presets, **limits: Any) -> SamplingParams:
    given = body.given
    if body.stream_options is not None and not body.stream:
        raise RequestError("stream_options needs stream to be true", "stream_options")
    if given.get("prompt_logprobs") is not None and body.stream:
        raise RequestError("prompt_logprobs and stream exclude each other", "prompt_logprobs")
    plain = {name: given[name] for name in _PLAIN_LIMITS if given.get(name) is not None}
    filled = completed(given, presets)
    params = SamplingParams(
        **{**plain, **limits}, stop=tuple(body.stop or ()), stages=stages_from(filled)
    )
    if body.stream:
        check_streams(params)
    return params


def completed(given: Mapping[str, Any], presets: Presets) -> dict[str, Any]:
    """Fields of a request with those of presets; a beam search has nobody's defaults.

    Raises:
        RequestError: it names a preset that is not there, or a forced one forbids the search.
    """
    beams = given.get("use_beam_search") is True
    return presets.fill_search(given) if beams else presets.fill(given)


def check_streams(params: SamplingParams) -> None:
    """RequestError: what is told is only known at the end."""
    if params.use_beam_search:
        raise RequestError(
            "use_beam_search cannot stream, because no beam is certain before the end; "
            "send stream false",
            "stream",
        )
    if params.width > params.n:
        raise RequestError(
            f"best_of ({params.width}) above n ({params.n}) cannot stream, because the best are "
            "known at the end; send stream false, or leave best_of out",
            "best_of",
        )


async def completion_prompts(
    engine: AsyncEngine, body: CompletionRequest | ExplainRequest
) -> list[Prompt]:
    """One for each prompt of the body. RequestError: too many, or one is empty."""
    prompts = body.prompt or []
    if len(prompts) > MOST_PROMPTS:
        raise RequestError(
            f"prompt holds {len(prompts)} prompts; send at most {MOST_PROMPTS} at once",
            "prompt",
        )
    add_special = body.add_special_tokens is not False
    return [await _prompt(engine, one, add_special=add_special) for one in prompts]


async def _prompt(engine: AsyncEngine, prompt: Any, *, add_special: bool) -> Prompt:
    if isinstance(prompt, str):
        _check_fits(engine, len(prompt))
        tokens = await encode(engine.tokenizer, prompt, add_special=add_special)
        made = Prompt(tokens, prompt)
    else:
        made = Prompt(prompt)
    if not made.tokens:
        raise RequestError("the prompt is empty; send at least one token", "prompt")
    return made


def _check_fits(engine: AsyncEngine, characters: int) -> None:
    """Refuse a text that cannot fit, however it is cut into tokens, before any work goes into it.

    Raises:
        ContextLengthError: it cannot.
    """
    if characters < _LONG_TEXT:
        return
    context, least = engine.info.max_model_len, characters // engine.tokenizer.longest_token
    if least > context:
        raise ContextLengthError(
            f"this model's maximum context length is {context} tokens, but the prompt has "
            f"{characters} characters, which are at least {least} tokens; shorten it",
            "prompt",
        )


async def encode(tokenizer: Tokenizer, text: str, *, add_special: bool) -> list[int]:
    """Tokens of a text; a long one does not hold up the others. RequestError: it is too long."""
    if len(text) > MOST_CHARACTERS:
        raise RequestError(
            f"the text has {len(text)} characters; send at most {MOST_CHARACTERS} at once", "prompt"
        )
    return await _aside(len(text), lambda: tokenizer.encode(text, add_special=add_special))


async def decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of tokens, control tokens included; a long one does not hold up the others."""
    return await _aside(len(tokens), lambda: tokenizer.decode(tokens, skip_special=False))


async def chat_tokens(
    engine: AsyncEngine, body: ChatRequest | ExplainRequest | TokenizeRequest
) -> list[int]:
    """The conversation, as the model's template writes it."""
    messages = body.messages or []
    length = sum(_length(message) for message in messages)
    _check_fits(engine, length)
    template, variables = engine.template, body.chat_template_kwargs
    continuing = body.continue_final_message is True
    if continuing and body.add_generation_prompt:
        raise RequestError(
            "continue_final_message and add_generation_prompt exclude each other; send one",
            "continue_final_message",
        )
    conversation = [_turn(message) for message in messages]
    opening = body.add_generation_prompt is not False

    def render() -> list[int]:
        return _rendered(template, conversation, variables, opening=opening, continuing=continuing)

    return await _aside(length, render)


def _rendered(
    template: ChatTemplate,
    conversation: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any] | None,
    *,
    opening: bool,
    continuing: bool,
) -> list[int]:
    return template.tokens(
        conversation,
        add_generation_prompt=opening,
        continue_final_message=continuing,
        variables=variables,
    )


_ROLES = {"developer": "system", "function": "tool"}  # names that templates do not know


def _turn(message: Message) -> dict[str, Any]:
    return {**message.given, "role": _ROLES.get(message.role, message.role)}


def _length(message: Message) -> int:
    content = message.content
    parts = [content] if isinstance(content, str) else content or []
    return sum(len(str(part)) for part in parts)


async def _aside(length: int, work: Callable[[], T]) -> T:
    """Run in a thread if it would take long."""
    return work() if length < _LONG_TEXT else await asyncio.to_thread(work)
