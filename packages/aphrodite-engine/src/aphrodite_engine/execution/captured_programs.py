"""Decoding steps captured at a few sizes; what is no decoding step runs eagerly.

A size is captured when a step first needs it, or before, while the engine has nothing to do, the
largest first: all share the memory that the largest takes.
"""

import logging
from dataclasses import dataclass

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.protocols import Capture, Program
from torch import Tensor

from aphrodite_engine.execution.device_inputs import DeviceInputs
from aphrodite_engine.execution.programs import EagerPrograms, Likeliest
from aphrodite_engine.execution.step import Step
from aphrodite_engine.model import Model, capped

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Decoding:
    """A captured step, and where it leaves what it finds."""

    size: int
    """Rows, padding included."""
    program: Program
    logits: Tensor
    likeliest: list[Tensor]


class CapturedPrograms:
    """Implements programs.Programs over rigid captures."""

    repeats = False

    def __init__(
        self, model: Model, eager: EagerPrograms, inputs: DeviceInputs, backend: Backend
    ) -> None:
        """`backend` can capture."""
        assert backend.capture is not None
        self._model = model
        self._eager = eager
        self._inputs = inputs
        self._capture: Capture = backend.capture
        self._argmax = backend.argmax
        self._captured: dict[int, _Decoding] = {}
        self._uncaptured = list(inputs.sizes)
        self._last: _Decoding | None = None

    def forward(self, step: Step, *, every: bool) -> None:
        self._last = self._at(self._inputs.padded(step.requests)) if step.decodes else None
        if self._last is None:
            self._eager.forward(step, every=every)
        else:
            size = self._last.size
            self._last.program.replay(size, size, size)

    def logits(self, step: Step, outputs: int) -> Tensor:
        if self._last is None:
            return self._eager.logits(step, outputs)
        return self._last.logits[:outputs]

    def likeliest(self, step: Step) -> Likeliest | None:
        if self._last is None:
            return None
        tokens, valid = self._last.likeliest
        return tokens[: step.outputs], valid[: step.outputs]

    def prepare(self) -> bool:
        """Capture the largest size that is not yet; false if there is none."""
        if self._uncaptured:
            size = self._uncaptured[-1]
            self._inputs.nobody(size)
            self._at(size)
        return bool(self._uncaptured)

    def _at(self, size: int) -> _Decoding | None:
        if size in self._uncaptured:
            self._uncaptured.remove(size)
            try:
                self._captured[size] = self._captured_at(size)
            except torch.OutOfMemoryError:
                _log.warning(
                    "no memory is left to capture decoding steps of %d requests: such steps are "
                    "launched kernel by kernel; lower --gpu-memory-utilization",
                    size,
                )
        return self._captured.get(size)

    def _captured_at(self, size: int) -> _Decoding:
        """Forward, logits of all rows, and what follows if all of them are greedy."""
        likeliest: list[Tensor] = []

        def decode() -> Tensor:
            hidden = self._model.forward(self._inputs.decoding(size))
            logits = capped(self._model.logits(hidden), self._model)
            likeliest[:] = self._argmax(logits)
            self._inputs.write_decoded(size, likeliest[0])
            return logits

        program, logits = self._capture(decode, size, size, size)
        return _Decoding(size, program, logits, likeliest)
