"""From bodies of the Kobold API to what the engine is asked.

Kobold's contract differs from OpenAI's where texts meet limits: lengths that are too large are
lowered and a prompt that is too long loses its beginning, where OpenAI's endpoints refuse. What was
changed so is told in a header.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.catalog import stages_from
from aphrodite_engine.sampling.params import SamplingParams

from aphrodite_server.kobold_schema import KoboldRequest
from aphrodite_server.presets import Presets
from aphrodite_server.translate import Prompt, completed, encode

DEFAULT_LENGTH: Final = 180
"""max_length where a request names none."""
CLAMPED_HEADER: Final = "X-Aphrodite-Clamped-Fields"

_PLAIN_LIMITS = (
    "n",
    "best_of",
    "use_beam_search",
    "length_penalty",
    "early_stopping",
    "min_tokens",
    "stop_token_ids",
    "spaces_between_special_tokens",
)


@dataclass(frozen=True)
class Fitted:
    """A request made to fit."""

    prompt: Prompt
    max_tokens: int
    clamped: Mapping[str, int]
    """Fields whose values were too large, and what they became: of texts, tokens that are left."""

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told."""
        told = ", ".join(f"{name}={value}" for name, value in self.clamped.items())
        return {CLAMPED_HEADER: told} if told else {}


async def fitted(engine: AsyncEngine, body: KoboldRequest) -> Fitted:
    """Memory and prompt as tokens, and the lengths, as far as the context has room.

    Raises:
        RequestError: nothing to continue, or memory and output alone do not fit.
    """
    special = engine.tokenizer.special
    memory, prompt = [await _tokens(engine, text) for text in (body.memory, body.prompt)]
    head = [*special.before, *memory]
    if not head and not prompt:
        raise RequestError("the prompt is empty; send at least one token", "prompt")
    context = min(body.max_context_length or engine.info.max_model_len, engine.info.max_model_len)
    fixed = len(head) + len(special.after)
    length = _length(body.max_length or DEFAULT_LENGTH, context, fixed + len(prompt))
    room = context - length - fixed
    if room < min(1, len(prompt)):
        raise RequestError(
            f"memory has {len(memory)} tokens, which leave no room for a prompt beside {length} "
            f"tokens of output in a context of {context}; shorten it",
            "memory",
        )
    kept = prompt[max(0, len(prompt) - room) :]
    clamped = {
        name: value
        for name, value, asked in (
            ("max_context_length", context, body.max_context_length),
            ("max_length", length, body.max_length),
            ("prompt", len(kept), len(prompt)),
        )
        if asked is not None and value < asked
    }
    return Fitted(Prompt([*head, *kept, *special.after]), length, clamped)


def _length(asked: int, context: int, prompt: int) -> int:
    """Tokens of output: what is asked for, unless nothing would be left of the prompt.

    Then it gets what the whole prompt leaves, or at least half of the context.
    """
    return asked if asked < context else max(context - prompt, context // 2)


async def _tokens(engine: AsyncEngine, text: str | None) -> list[int]:
    return await encode(engine.tokenizer, text, add_special=False) if text else []


def kobold_params(body: KoboldRequest, max_tokens: int, presets: Presets) -> SamplingParams:
    """What the engine is asked for.

    Raises:
        RequestError: a value is out of range, two contradict each other, or there is no such
            preset.
    """
    given = completed(body.given, presets)
    limits = {name: given[name] for name in _PLAIN_LIMITS if given.get(name) is not None}
    return SamplingParams(
        **limits,
        max_tokens=max_tokens,
        seed=body.sampler_seed,
        stop=tuple(body.stop_sequence or ()),
        include_stop_str_in_output=_either(given, "include_stop_str_in_output", "trim_stop"),
        ignore_eos=bool(given.get("ignore_eos") or body.bypass_eos),
        skip_special_tokens=not _either(given, "render_special", "skip_special_tokens"),
        stages=stages_from(given),
    )


def _either(given: Mapping[str, Any], name: str, opposite: str) -> bool:
    """A switch that may be given as its opposite; off if neither is.

    Raises:
        RequestError: both are given, and contradict each other.
    """
    value, inverse = given.get(name), given.get(opposite)
    if value is not None and value == inverse:
        raise RequestError(
            f"{name} and {opposite} are opposites, but both are {str(value).lower()}; send one",
            opposite,
        )
    return bool(value) if value is not None else inverse is False
