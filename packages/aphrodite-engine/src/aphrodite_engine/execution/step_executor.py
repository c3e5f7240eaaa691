"""One step after the other: a plan's deltas, its forward pass, its tokens.

What goes wrong for one row (a delta that makes no sense, numbers that are not finite, a stage that
raises) is that row's error. What goes wrong in the forward pass is an error of all rows of the step
and of nothing else: the state changed only by the deltas.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aphrodite_engine.execution.inputs import Step, StepInputs
from aphrodite_engine.execution.programs import Programs
from aphrodite_engine.execution.state import BatchState
from aphrodite_engine.outputs import RowOutput, StepOutput
from aphrodite_engine.plan import Plan, RowStart, RowWork
from aphrodite_engine.sampling.logprobs import TokenLogprobs, score
from aphrodite_engine.sampling.sampler import Draw, Sampled, Sampler

_SCORED_AT_ONCE = 32
"""Prompt positions whose logits exist at the same time."""

_log = logging.getLogger(__name__)


class StepExecutor:
    """Executes plans in the order given, in the calling thread."""

    def __init__(
        self,
        state: BatchState,
        inputs: StepInputs,
        programs: Programs,
        sampler: Sampler,
        softcap: float | None,
    ) -> None:
        self._state = state
        self._inputs = inputs
        self._programs = programs
        self._sampler = sampler
        self._softcap = softcap

    @torch.inference_mode()
    def run(self, plan: Plan) -> StepOutput:
        """Execute a plan."""
        self._take_deltas(plan)
        broken = self._state.broken
        work = [item for item in plan.work if item.row not in broken]
        done = iter(self._compute(work) if work else [])
        return StepOutput(
            [
                RowOutput(error=broken[item.row]) if item.row in broken else next(done)
                for item in plan.work
            ]
            if broken
            else list(done)
        )

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

    def _compute(self, work: Sequence[RowWork]) -> list[RowOutput]:
        try:
            step = self._inputs.fill(work)
            self._programs.forward(step)
            draws = self._sample(step) if step.outputs else []
        except Exception as error:
            return [RowOutput(error=_described("the step", error)) for _ in work]
        results = [RowOutput()] * len(work)
        for index, draw in zip(step.sampling.tolist(), draws, strict=True):
            results[index] = _row_output(draw)
        for index, item in enumerate(work):
            if item.prompt_logprobs and results[index].error is None:
                results[index] = self._with_prompt_scores(step, index, item, results[index])
        return results

    def _logits(self, step: Step, outputs: int) -> Tensor:
        logits = self._programs.logits(step, outputs)
        if self._softcap is not None:
            logits.div_(self._softcap).tanh_().mul_(self._softcap)
        return logits

    def _sample(self, step: Step) -> list[Draw]:
        """Draw tokens and put them where the next step finds them."""
        logits = self._logits(step, step.outputs)
        rows = step.rows[step.sampling].tolist()
        positions = step.seq_lens[step.sampling].tolist()
        try:
            sampled = self._draw(logits, rows, positions)
        except Exception:
            _log.warning("sampling a batch failed, each row is sampled alone", exc_info=True)
            return self._sample_each(logits, rows, positions)
        return sampled.read()

    def _draw(self, logits: Tensor, rows: list[int], positions: list[int]) -> Sampled:
        sampled = self._sampler.sample(logits, rows, positions, self._state.tokens)
        self._state.write(rows, positions, sampled.tokens)
        return sampled

    def _sample_each(self, logits: Tensor, rows: list[int], positions: list[int]) -> list[Draw]:
        """Row by row: the row that fails is alone with its error."""
        draws: list[Draw] = []
        for index, (row, position) in enumerate(zip(rows, positions, strict=True)):
            try:
                draws += self._draw(logits[index : index + 1], [row], [position]).read()
            except Exception as error:
                message = self._state.broken[row] = _described("sampling", error)
                draws.append(Draw(0, None, message))
        return draws

    def _with_prompt_scores(
        self, step: Step, index: int, item: RowWork, result: RowOutput
    ) -> RowOutput:
        try:
            scores = self._score_prompt(step, index, item)
        except Exception as error:
            return RowOutput(error=_described("scoring its prompt", error))
        return RowOutput(tokens=result.tokens, logprobs=result.logprobs, prompt_logprobs=scores)

    def _score_prompt(self, step: Step, index: int, item: RowWork) -> list[TokenLogprobs]:
        """Score the prompt tokens that follow the positions of this chunk."""
        start: RowStart | None = self._state.started[item.row]
        assert start is not None, "work for a row in which nobody sits"
        likeliest = start.params.prompt_logprobs or 0
        first_row = int(step.query_starts[index]) - item.start
        stop = min(item.start + item.count, start.prompt_length - 1)
        at_once = min(_SCORED_AT_ONCE, self._inputs.outputs)
        scores: list[TokenLogprobs] = []
        for first in range(item.start, stop, at_once):
            last = min(first + at_once, stop)
            self._inputs.choose(np.arange(first_row + first, first_row + last))
            logits = self._logits(step, last - first)
            tokens = self._state.tokens[item.row, first + 1 : last + 1].long()
            scores += score(logits, tokens, likeliest).read([likeliest] * (last - first))
        return scores


def _row_output(draw: Draw) -> RowOutput:
    if draw.error is not None:
        return RowOutput(error=draw.error)
    logprobs = [] if draw.logprobs is None else [draw.logprobs]
    return RowOutput(tokens=[draw.token], logprobs=logprobs)


def _described(what: str, error: Exception) -> str:
    """A sentence for the request; the traceback goes to the log."""
    _log.error("%s failed", what, exc_info=error)
    return f"{what} failed: {type(error).__name__}: {error}"
