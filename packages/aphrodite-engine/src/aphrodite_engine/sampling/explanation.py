"""What the sampler did at one position, as plain data."""

from typing import Any

import msgspec


class Candidate(msgspec.Struct, frozen=True):
    """A token, and how probable it was before and after a stage."""

    token: int
    before: float
    after: float


class Spread(msgspec.Struct, frozen=True):
    """A distribution in two numbers."""

    candidates: int
    """Tokens that are possible."""
    entropy: float
    """In bits."""


class StageEffect(msgspec.Struct, frozen=True, kw_only=True):
    """How a stage changed the candidates."""

    stage: str
    fields: dict[str, Any]
    """Of the stage, as the request set them or by default."""
    before: Spread
    after: Spread
    top: list[Candidate]
    """The likeliest, by the larger of their two probabilities, descending."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What the stages made of the model's logits at one position."""

    token: int
    """What came of it."""
    greedy: bool
    """The likeliest token at the end was taken, without a draw; stages that cannot change which
    one that is did not run.
    """
    stages: list[StageEffect]
    """In the order in which they acted."""
    final: Spread
    top: list[tuple[int, float]]
    """The likeliest tokens at the end and their probabilities, descending."""
