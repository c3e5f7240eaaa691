"""A step that the device works on, and what the host makes of it when it is done."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from aphrodite_engine.execution.readback import Readback
from aphrodite_engine.outputs import RowOutput, StepOutput
from aphrodite_engine.sampling.logprobs import Scores
from aphrodite_engine.sampling.sampler import Draw
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs


class Draws(Protocol):
    """Tokens of some rows, on the host or on their way there."""

    def read(self) -> list[Draw]: ...


@dataclass(frozen=True, slots=True)
class FailedDraw:
    """A row that could not be sampled."""

    error: str

    def read(self) -> list[Draw]:
        return [Draw(0, None, {}, self.error)]


@dataclass(frozen=True, slots=True)
class PromptScores:
    """Log-probabilities of the prompt tokens of a chunk."""

    likeliest: int
    """How many of the likeliest tokens were asked for."""
    scores: Sequence[Scores]
    error: str | None

    def read(self) -> list[TokenLogprobs]:
        parts = (part.read([self.likeliest] * len(part.tokens)) for part in self.scores)
        return [item for part in parts for item in part]


@dataclass(slots=True)
class Underway:
    """Implements engine.Pending. `launch` fills it in; `wait` reads it, once."""

    readback: Readback
    errors: list[str | None]
    """Per row of the plan: why it was not computed. The other fields count only those that were."""
    sampling: list[int] = field(default_factory=list[int])
    """Rows that sample, in the order of `draws`."""
    draws: list[Draws] = field(default_factory=list[Draws])
    prompts: dict[int, PromptScores] = field(default_factory=dict[int, PromptScores])

    def fail(self, error: str) -> None:
        """Nothing of the step came about."""
        self.errors = [known or error for known in self.errors]
        self.sampling, self.draws, self.prompts = [], [], {}

    def wait(self) -> StepOutput:
        """Block until the device is done with it."""
        self.readback.wait()
        computed = [RowOutput()] * self.errors.count(None)
        draws = [draw for part in self.draws for draw in part.read()]
        for index, draw in zip(self.sampling, draws, strict=True):
            computed[index] = _row_output(draw)
        for index, scores in self.prompts.items():
            computed[index] = _with_scores(computed[index], scores)
        found = iter(computed)
        return StepOutput(
            [next(found) if error is None else RowOutput(error=error) for error in self.errors]
        )


def _row_output(draw: Draw) -> RowOutput:
    if draw.error is not None:
        return RowOutput(error=draw.error)
    logprobs = [] if draw.logprobs is None else [draw.logprobs]
    explanations = [] if draw.explanation is None else [draw.explanation]
    return RowOutput(
        tokens=[draw.token],
        logprobs=logprobs,
        remembered=draw.remembered,
        explanations=explanations,
    )


def _with_scores(result: RowOutput, scores: PromptScores) -> RowOutput:
    if result.error is not None:
        return result
    if scores.error is not None:
        return RowOutput(error=scores.error)
    return msgspec.structs.replace(result, prompt_logprobs=scores.read())
