"""Answers of the sampler endpoints."""

from collections.abc import Sequence
from typing import Any

from openai import BaseModel


class SamplerField(BaseModel):
    """One field of a request."""

    name: str
    aliases: Sequence[str] = ()
    """Other names that it may be sent by."""
    type: str
    """As JSON has it: `number`, `integer`, `boolean`, `string`, or `list of …`, `map from …`."""
    minimum: float | None = None
    exclusive_minimum: float | None = None
    maximum: float | None = None
    exclusive_maximum: float | None = None
    range: str = ""
    """The four above, in words."""
    step: float | None = None
    """By which a slider may move; of numbers."""
    default: Any = None
    """What an absent field means."""
    off: Sequence[Any] = ()
    """Values that switch it off, besides None and whatever is empty; none: other fields do."""
    docs: str


class Sampler(BaseModel):
    """One sampler and its fields."""

    name: str
    """Also in `sampler_priority`."""
    number: int | None = None
    """The same, for clients that number them."""
    order: int
    """Place in the default order, counted from 1."""
    docs: str
    fields: list[SamplerField]  # pyright: ignore[reportIncompatibleVariableOverride]


class Samplers(BaseModel):
    """Everything that shapes how a token is drawn on this server."""

    samplers: list[Sampler]
    """In default order."""
    order: list[SamplerField]
    """Fields that change it."""
    presets: dict[str, dict[str, Any]]
    """Sets of fields that a request may name as its `preset`, by name."""
    model_defaults: dict[str, Any]
    """Fields that the model's makers recommend, where requests and presets are silent."""


class Counts(BaseModel):
    """A number of tokens before and after a sampler."""

    before: int
    after: int


class Bits(BaseModel):
    """An entropy before and after a sampler."""

    before: float
    after: float


class Token(BaseModel):
    """A token."""

    id: int
    text: str


class Candidate(Token):
    """A token, and its probability before and after a sampler."""

    before: float
    after: float


class Likely(Token):
    """A token, and its probability at the end."""

    probability: float


class SamplerEffect(BaseModel):
    """How a sampler changed the candidates for the next token."""

    name: str
    fields: dict[str, Any]  # pyright: ignore[reportIncompatibleVariableOverride]
    """Of the sampler, as the request set them or by default."""
    candidates: Counts
    """Tokens that are possible."""
    entropy: Bits
    tokens: list[Candidate]
    """The likeliest, by the larger of their two probabilities, descending."""


class Distribution(BaseModel):
    """What the token is drawn from."""

    candidates: int
    entropy: float
    tokens: list[Likely]
    """The likeliest, descending."""


class Explanation(BaseModel):
    """What the samplers make of a prompt's next token."""

    model: str
    greedy: bool
    """The likeliest token at the end is taken; samplers that cannot change it did not run."""
    token: Token
    """What came of it; a completion with the same seed begins with it."""
    samplers: list[SamplerEffect]
    """Those that acted, in their order."""
    final: Distribution
