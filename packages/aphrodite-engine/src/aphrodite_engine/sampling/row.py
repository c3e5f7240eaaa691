"""A row's parameters, worked out once when a request takes the row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.stages.min_tokens import MinTokens
from aphrodite_engine.sampling.stages.temperature import Temperature

_BEYOND = 2**32
"""Tokens that no row has."""


class RowSpec(Protocol):
    """What the sampler needs to know of a row; `plan.RowStart` is one."""

    @property
    def row(self) -> int: ...
    @property
    def choice(self) -> int: ...
    @property
    def tokens(self) -> Sequence[int]: ...
    @property
    def prompt_length(self) -> int: ...
    @property
    def params(self) -> SamplingParams: ...
    @property
    def seed(self) -> int: ...
    @property
    def stop_tokens(self) -> Sequence[int]: ...
    @property
    def remembered(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """What the sampler keeps of a row."""

    chain: tuple[Stage, ...]
    """Stages that have an effect on it, in its order."""
    greedy: bool
    """The likeliest token is taken after the chain, without a draw."""
    seed: int
    """The int64 of the request's 64 bits."""
    choice: int
    prompt_length: int
    logprobs: int | None
    explain: int | None
    beam: bool
    """Its log-probabilities are those after the chain."""

    @property
    def last_place(self) -> float:
        """Up to which none of the stages is over; see `Stage.last_place`."""
        return min(map(self._last_place_of, self.chain), default=math.inf)

    def at(self, position: int) -> "Row":
        """The same without the stages that are over before a position."""
        left = tuple(stage for stage in self.chain if position <= self._last_place_of(stage))
        return self if left == self.chain else replace(self, chain=left)

    def _last_place_of(self, stage: Stage) -> float:
        place = stage.last_place(self.prompt_length)
        return math.inf if place is None else place


def make_row(spec: RowSpec) -> Row:
    """Work out a row's parameters."""
    params = spec.params
    first_end = spec.prompt_length + min(params.min_tokens, _BEYOND)
    ends = MinTokens(first_end, tuple(sorted(spec.stop_tokens)))
    asked = [stage for stage in params.stages if stage.acts]
    cold = [isinstance(stage, Temperature) and stage.greedy for stage in asked]
    greedy = any(cold)
    if greedy:  # nothing acts after the cold stage, nor need what keeps the argmax just before it
        asked = [stage for stage in asked[: cold.index(True)] if not stage.shapes_draws]
        while asked and asked[-1].keeps_argmax:
            asked.pop()
    return Row(
        chain=(ends, *asked) if params.min_tokens and spec.stop_tokens else tuple(asked),
        greedy=greedy,
        seed=_signed(spec.seed),
        choice=spec.choice,
        prompt_length=spec.prompt_length,
        logprobs=params.logprobs,
        explain=params.explain,
        beam=params.use_beam_search,
    )


def _signed(seed: int) -> int:
    return (seed + 2**63) % 2**64 - 2**63
