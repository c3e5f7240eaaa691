"""What a request of the Kobold API may hold.

Samplers and limits are those of the OpenAI endpoints; Kobold's names of the samplers are aliases
that the stages bring themselves. What is Kobold's own is declared here.
"""

from typing import Annotated, Any, Literal, cast

from pydantic import Field, model_validator
from pydantic.config import JsonDict

from aphrodite_server.fields import KOBOLD_ALIASES, folded_body
from aphrodite_server.schema import (
    OWN_LIMITS,
    Flag,
    SeedNumber,
    StopStrings,
    Wire,
    sampling_fields,
)

_ORDER: JsonDict = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}
_OWN = OWN_LIMITS | {"max_tokens", "prompt_logprobs"}


class KoboldRequest(sampling_fields(_OWN)):
    """Body of /api/v1/generate and /api/extra/generate/stream."""

    prompt: str
    """What is continued. If it is too long, its end is."""
    memory: str | None = None
    """Put before the prompt; never cut off."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Most tokens to generate (default: 180); less where the context has no room for them."""
    max_context_length: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of memory, prompt and output together; at most those of the model (default)."""
    stop_sequence: StopStrings = None
    """Texts that end the output. Also: stop, stopping_strings."""
    trim_stop: Flag = None
    """Cut the stop sequence off (default); false keeps it."""
    sampler_seed: SeedNumber = None
    """64-bit; absent or -1: drawn at random. Also: seed."""
    sampler_order: Annotated[Any, Field(json_schema_extra=_ORDER)] = None
    """Kobold's numbers, or names: 0 top_k, 1 top_a, 2 top_p and min_p, 3 tfs, 4 typical,
    5 temperature and smoothing, 6 rep_pen. Empty or absent: the default order."""
    bypass_eos: Flag = None
    """Generate on past end-of-text."""
    render_special: Flag = None
    """Show control tokens in the text."""
    logprobs: Literal[False] | None = None
    preset: str | None = None
    """Name of a set of sampler fields that the server keeps; fields of the request go before it."""
    genkey: str | None = None
    """A name of the client's choice, for generate/check and abort."""

    @model_validator(mode="before")
    @classmethod
    def _fold(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return folded_body(cast("dict[str, Any]", body), cls.model_fields, KOBOLD_ALIASES)


class KoboldKey(Wire):
    """Body of /api/extra/generate/check and /api/extra/abort."""

    genkey: str | None = None
    """That of the request; nothing: requests of the same client that brought none."""


class KoboldCount(Wire):
    """Body of /api/extra/tokencount."""

    prompt: str
    special: Flag = None
    """Count begin-of-text, too, if the model wants it (default)."""


class KoboldSoftPrompt(Wire):
    """Body of PUT /api/v1/config/soft_prompt."""

    value: Literal[""] | None = None
    """No soft prompts are here."""
