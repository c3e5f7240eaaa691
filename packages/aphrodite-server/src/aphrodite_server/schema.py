"""What a request may hold.

The sampler's fields come from the engine's stages: no sampler is named here. Their bounds and
descriptions stand in the API's documentation; the engine itself compares values with them. Fields
that are not declared are kept and judged by fields.py.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, cast

from aphrodite_engine.sampling.catalog import stage_fields
from aphrodite_engine.sampling.fields import Field as EngineField
from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.priority import ORDER_ALIASES, ORDER_FIELDS
from aphrodite_engine.sampling.spelling import seed_in, stops_in
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    WithJsonSchema,
    create_model,
    model_validator,
)

from aphrodite_server.fields import ALIASES, folded_body

_LIMITS = {field.name: field for field in fields_of(SamplingParams)}
OWN_LIMITS: Final = frozenset({"stop", "seed", "logprobs", "explain", "stages"})
"""Limits that look different on the wire, or belong to a path of their own."""


class Wire(BaseModel):
    """A body: unknown fields are kept, null means absent."""

    model_config = ConfigDict(
        extra="allow",
        allow_inf_nan=False,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )

    @property
    def given(self) -> dict[str, Any]:
        """All fields that were sent, declared or not."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _described(field: EngineField, aliases: tuple[str, ...]) -> str:
    also = f" Also: {', '.join(aliases)}." if aliases else ""
    return field.doc.rstrip(".") + "." + also


def _stage_field(field: EngineField, aliases: tuple[str, ...]) -> Any:
    schema = TypeAdapter(field.annotation).json_schema()
    documented = {
        "anyOf": [schema, {"type": "null"}],
        "description": _described(field, aliases),
        "title": field.name,
    }
    return (Annotated[Any, WithJsonSchema(documented)], None)


def _limit_field(field: EngineField) -> Any:
    aliases = tuple(alias for alias, name in ALIASES.items() if name == field.name)
    described = Field(default=None, description=_described(field, aliases))
    return (field.annotation | None, described)


def sampling_fields(own: frozenset[str] = OWN_LIMITS) -> type[Wire]:
    """A body with every sampler's fields, and with all limits but those of `own`."""
    stages: dict[str, Any] = {
        declared.name: _stage_field(declared.field, declared.aliases) for declared in stage_fields()
    }
    order = {
        field.name: _stage_field(field, ORDER_ALIASES.get(field.name, ())) for field in ORDER_FIELDS
    }
    limits = {name: _limit_field(field) for name, field in _LIMITS.items() if name not in own}
    return create_model("SamplingFields", __base__=Wire, **stages, **order, **limits)


StopStrings = Annotated[
    list[str] | None,
    BeforeValidator(stops_in, json_schema_input_type=str | list[str] | None),
]
SeedNumber = Annotated[
    Annotated[int, Field(ge=-(2**63), lt=2**64)] | None,
    BeforeValidator(seed_in),
]
Stops = Annotated[
    StopStrings,
    Field(description=_described(_LIMITS["stop"], ("stopping_strings",))),
]
Seed = Annotated[
    SeedNumber,
    Field(description=_described(_LIMITS["seed"], ("sampler_seed",)) + " -1: drawn at random."),
]
Flag = bool | None


class StreamOptions(Wire):
    """What a stream carries besides text."""

    include_usage: Flag = None
    """One more chunk at the end: no choices, the usage of the whole request."""
    continuous_usage_stats: Flag = None
    """Usage so far in every chunk."""


class GenerationRequest(sampling_fields()):
    """What both endpoints take."""

    model: str | None = None
    """A served name, `default`, or nothing."""
    stop: Stops = None
    seed: Seed = None
    preset: str | None = None
    """Name of a set of sampler fields that the server keeps; fields of the request go before it."""
    stream: Flag = None
    """Answer piecewise, as server-sent events."""
    stream_options: StreamOptions | None = None
    priority: int | None = None
    """Lower runs first, where the server runs by priority."""
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """Most tokens to generate."""

    @model_validator(mode="before")
    @classmethod
    def _fold(cls, body: Any) -> Any:
        return folded_body(body, cls.model_fields) if isinstance(body, dict) else body  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


Logprobs = Annotated[int, Field(ge=0, le=20)]
PROMPT_FORMS = "must be a string, a list of strings, a list of token ids or a list of such lists"


def _prompt(value: object) -> object:
    """Texts or token lists; a single one in a list of its own."""
    if isinstance(value, str):
        return [value]
    items = _items(value)
    if items and _all_integers(items):
        return [items]
    texts = all(isinstance(item, str) for item in items)
    tokens = all(
        isinstance(item, list) and _all_integers(_items(cast("object", item))) for item in items
    )
    if not items or not (texts or tokens):
        raise ValueError(PROMPT_FORMS)
    return items


def _prompt_if_any(value: object) -> object:
    return None if value is None else _prompt(value)


def _items(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _all_integers(items: Sequence[object]) -> bool:
    return all(type(item) is int for item in items)


class CompletionRequest(GenerationRequest):
    """Body of /v1/completions."""

    prompt: Annotated[
        list[Any],
        BeforeValidator(
            _prompt, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ]
    """One prompt or several, as text or as token ids."""
    echo: Flag = None
    """Begin the text with the prompt."""
    logprobs: Logprobs | Literal[False] | None = None
    """Log-probabilities of the chosen token and this many likeliest ones."""
    add_special_tokens: Flag = None
    """Put begin-of-text before a prompt that is text, if the model wants it (default)."""


class Message(Wire):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    """Text, or text parts."""


class ChatRequest(GenerationRequest):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=0)] | None = None
    """Newer name of max_tokens; wins over it."""
    logprobs: Flag = None
    """Return log-probabilities."""
    top_logprobs: Logprobs | None = None
    """Of this many likeliest tokens, too."""
    echo: Literal[False] | None = None
    add_generation_prompt: Flag = None
    """End the prompt with the opening of the assistant's turn (default)."""
    continue_final_message: Flag = None
    """Let the model go on inside the last message."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Further values for the chat template."""


class ExplainRequest(GenerationRequest):
    """Body of /v1/samplers/explain: that of a completion or of a chat completion.

    Limits and stops, which are about what follows, change nothing of the next position.
    """

    prompt: Annotated[
        list[Any] | None,
        BeforeValidator(
            _prompt_if_any, json_schema_input_type=str | list[str] | list[int] | list[list[int]]
        ),
    ] = None
    """One prompt, as text or as token ids."""
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    """A conversation instead."""
    top: Annotated[int, Field(ge=1, le=100)] | None = None
    """Likeliest tokens to show for each sampler; 20 unless given."""
    add_special_tokens: Flag = None
    """Put begin-of-text before a prompt that is text, if the model wants it (default)."""
    add_generation_prompt: Flag = None
    """End the conversation with the opening of the assistant's turn (default)."""
    continue_final_message: Flag = None
    """Let the model go on inside the last message."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Further values for the chat template."""


class TokenizeRequest(Wire):
    """Body of /v1/tokenize: a text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: Flag = None
    """Begin-of-text before a text (default)."""
    add_generation_prompt: Flag = None
    continue_final_message: Flag = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: Flag = None
    """The text of each token, too."""


class DetokenizeRequest(Wire):
    """Body of /v1/detokenize."""

    model: str | None = None
    tokens: list[int]
