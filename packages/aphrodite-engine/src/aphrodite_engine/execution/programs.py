"""Running the model on a step: recorded once and replayed, or eagerly each time.

Two programs: tokens to hidden rows, and chosen hidden rows to logits. The second also runs alone,
over slices of rows, for the log-probabilities of a prompt.
"""

from dataclasses import replace
from typing import Protocol, TypeAlias

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.protocols import Capture
from torch import Tensor

from aphrodite_engine.execution.host_inputs import HostInputs
from aphrodite_engine.execution.step import Inputs, Step
from aphrodite_engine.model import Model, capped

Likeliest: TypeAlias = tuple[Tensor, Tensor]
"""Tokens [R] int32, and which of them are valid [R] bool."""


class Programs(Protocol):
    """The two halves of a forward pass, over the tensors of `Inputs`."""

    @property
    def repeats(self) -> bool:
        """Logits are computed anew whenever they are asked for, so they may be overwritten."""
        ...

    def forward(self, step: Step, *, every: bool) -> None:
        """Compute hidden rows, kept until the next call, and write keys and values.

        every: logits of any token may be asked for, not just of those that sample.
        """
        ...

    def logits(self, step: Step, outputs: int) -> Tensor:
        """[outputs, V] of the rows that the inputs chose; valid until the next call."""
        ...

    def likeliest(self, step: Step) -> Likeliest | None:
        """Of the rows that sample, if known already; None if not.

        Those known are written where the next step looks for its tokens.
        """
        ...

    def prepare(self) -> bool:
        """Make ready one of the things that a later step would have to wait for; false: all are."""
        ...


class EagerPrograms:
    """The model itself, each time."""

    repeats = True

    def __init__(self, model: Model, backend: Backend, inputs: Inputs) -> None:
        self._model = model
        self._select = backend.select
        self._inputs = inputs
        self._hidden: Tensor | None = None
        self._every = True

    def forward(self, step: Step, *, every: bool) -> None:
        self._every = every or step.decodes or not step.outputs
        wanted = None if self._every else self._inputs.logit_index[: step.outputs]
        self._hidden = self._model.forward(replace(self._inputs.exact(step), wanted=wanted))

    def logits(self, step: Step, outputs: int) -> Tensor:
        assert self._hidden is not None, "forward comes first"
        if not self._every:
            return capped(self._model.logits(self._hidden), self._model)
        chosen = self._select(self._hidden, self._inputs.logit_index[:outputs])
        return capped(self._model.logits(chosen), self._model)

    def likeliest(self, step: Step) -> None:
        """Nobody has looked."""

    def prepare(self) -> bool:
        """There is nothing to make ready."""
        return False


class RecordedPrograms:
    """One recording of each half over full buffers, replayed with the counts of the step."""

    repeats = True

    def __init__(
        self, model: Model, backend: Backend, inputs: HostInputs, capture: Capture
    ) -> None:
        counts = (inputs.capacity, inputs.rows, inputs.outputs)
        self._forward, hidden = capture(lambda: model.forward(inputs.whole()), *counts)
        self._head, logits = capture(
            lambda: model.logits(backend.select(hidden, inputs.logit_index)), *counts
        )
        self._model = model
        self._whole_logits = self._logits = logits

    def forward(self, step: Step, *, every: bool) -> None:  # a recording computes all
        self._forward.replay(step.tokens, step.requests, step.outputs)

    def logits(self, step: Step, outputs: int) -> Tensor:
        self._head.replay(step.tokens, step.requests, outputs)
        if len(self._logits) != outputs:  # a view costs 30 us, and decoding asks for the same again
            self._logits = self._whole_logits[:outputs]
        return capped(self._logits, self._model)  # by torch, which no recording has

    def likeliest(self, step: Step) -> None:
        """Nobody has looked."""

    def prepare(self) -> bool:
        """All is recorded."""
        return False
