"""One step after the other: a plan's deltas, its forward pass, its tokens.

Launching a step puts all its work in line on the device and waits for nothing: the sampled tokens
are where the next step finds them, and a copy is on its way to the host.

What goes wrong for one row (a delta that makes no sense, numbers that are not finite, a stage that
raises) is that row's error. What goes wrong in the forward pass is an error of all rows of the step
and of nothing else: the state changed only by the deltas.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aphrodite_engine.execution.programs import Programs
from aphrodite_engine.execution.readback import Readback
from aphrodite_engine.execution.state import BatchState
from aphrodite_engine.execution.step import Inputs, Step
from aphrodite_engine.execution.underway import FailedDraw, PromptScores, Underway
from aphrodite_engine.plan import Plan, RowStart, RowWork
from aphrodite_engine.sampling.logprobs import Scores
from aphrodite_engine.sampling.sampler import Sampled, Sampler, Standing

_SCORED_AT_ONCE = 32
"""Prompt positions whose logits exist at the same time."""

_log = logging.getLogger(__name__)


class StepExecutor:
    """Launches plans in the order given, in the calling thread."""

    def __init__(
        self,
        state: BatchState,
        inputs: Inputs,
        programs: Programs,
        sampler: Sampler,
    ) -> None:
        self._state = state
        self._inputs = inputs
        self._programs = programs
        self._sampler = sampler

    @torch.inference_mode()
    def launch(self, plan: Plan) -> Underway:
        """Put a plan in line on the device."""
        self._take_deltas(plan)
        broken = self._state.broken
        errors = [broken.get(item.row) for item in plan.work]
        work = [item for item, error in zip(plan.work, errors, strict=True) if error is None]
        underway = Underway(Readback(self._state.tokens.device), errors)
        if work:
            self._compute(work, underway)
        underway.readback.seal()
        return underway

    @torch.inference_mode()
    def prepare(self) -> bool:
        """Make ready one of the things that a later step would wait for; false: all are."""
        return self._programs.prepare()

    def _take_deltas(self, plan: Plan) -> None:
        for row in plan.released:
            if self._state.started[row] is not None:
                self._sampler.release(row)
        self._state.apply(plan)
        for start in plan.started:
            try:
                self._sampler.start(start)
            except Exception as error:
                self._state.broken[start.row] = _described("its parameters", error)

    def _compute(self, work: Sequence[RowWork], underway: Underway) -> None:
        try:
            step = self._inputs.fill(work)
            self._programs.forward(step, every=any(item.prompt_logprobs for item in work))
            if step.outputs:
                self._sample(step, underway)
        except Exception as error:
            underway.fail(_described("the step", error))
            return
        underway.sampling = step.sampling.tolist()
        for index, item in enumerate(work):
            if item.prompt_logprobs:
                underway.prompts[index] = self._score_prompt(step, index, item, underway.readback)

    def _sample(self, step: Step, underway: Underway) -> None:
        """Draw tokens and put them where the next step finds them."""
        logits, known = self._programs.logits(step, step.outputs), self._programs.likeliest(step)
        place = Standing(
            rows=step.rows[step.sampling].tolist(),
            positions=step.seq_lens[step.sampling].tolist(),
            on_device=self._inputs.sampled_positions(step),
        )
        try:
            sampled = self._sampler.sample(
                logits, place, self._state.tokens, known, spare=self._programs.repeats
            )
        except Exception:
            _log.warning("sampling a batch failed, each row is sampled alone", exc_info=True)
            if self._programs.repeats:
                logits = self._programs.logits(step, step.outputs)
            self._sample_each(step, logits, place, underway)
            return
        if known is None or sampled.tokens is not known[0]:
            self._inputs.write(step, sampled.tokens)
        underway.draws.append(sampled.map(underway.readback.take))

    def _sample_each(self, step: Step, logits: Tensor, place: Standing, underway: Underway) -> None:
        """Row by row: the row that fails is alone with its error."""
        tokens = torch.zeros(len(logits), dtype=torch.int32, device=logits.device)
        for index, row in enumerate(place.rows):
            try:
                sampled = self._sample_one(logits, place, index)
            except Exception as error:
                message = self._state.broken[row] = _described("sampling", error)
                underway.draws.append(FailedDraw(message))
                continue
            tokens[index : index + 1] = sampled.tokens
            underway.draws.append(sampled.map(underway.readback.take))
        self._inputs.write(step, tokens)

    def _sample_one(self, logits: Tensor, place: Standing, index: int) -> Sampled:
        here = slice(index, index + 1)
        return self._sampler.sample(logits[here], place.part(here), self._state.tokens)

    def _score_prompt(
        self, step: Step, index: int, item: RowWork, readback: Readback
    ) -> PromptScores:
        """Score the prompt tokens that follow the positions of this chunk."""
        start: RowStart | None = self._state.started[item.row]
        assert start is not None, "work for a row in which nobody sits"
        likeliest = start.params.prompt_logprobs or 0
        scores: list[Scores] = []
        error = None
        try:
            for first, last in self._slices(item, start):
                shift = int(step.query_starts[index]) - item.start
                self._inputs.choose(np.arange(shift + first, shift + last))
                logits = self._programs.logits(step, last - first)
                tokens = self._state.tokens[item.row, first + 1 : last + 1].long()
                scores.append(self._sampler.score(logits, tokens, likeliest).map(readback.take))
        except Exception as raised:
            error = _described("scoring its prompt", raised)
        return PromptScores(likeliest, scores, error)

    def _slices(self, item: RowWork, start: RowStart) -> list[tuple[int, int]]:
        """Positions of the chunk that have a prompt token behind them, a few at a time."""
        stop = min(item.start + item.count, start.prompt_length - 1)
        at_once = min(_SCORED_AT_ONCE, self._inputs.outputs)
        firsts = range(item.start, stop, at_once)
        return [(first, min(first + at_once, stop)) for first in firsts]


def _described(what: str, error: Exception) -> str:
    """A sentence for the request; the traceback goes to the log."""
    _log.error("%s failed", what, exc_info=error)
    return f"{what} failed: {type(error).__name__}: {error}"
