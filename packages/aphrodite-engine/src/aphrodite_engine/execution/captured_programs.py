"""Decoding steps captured at a few sizes; what is no decoding step runs eagerly.

A size is captured when a step first needs it, or before, while the engine has nothing to do, the
largest first: all share the memory that the largest takes.
"""

import logging

import torch
from aphrodite_kernels.protocols import Capture, Program
from torch import Tensor

from aphrodite_engine.execution.device_inputs import DeviceInputs
from aphrodite_engine.execution.programs import EagerPrograms
from aphrodite_engine.execution.step import Step
from aphrodite_engine.model import Model

_log = logging.getLogger(__name__)


class CapturedPrograms:
    """Implements programs.Programs over rigid captures."""

    def __init__(
        self, model: Model, eager: EagerPrograms, inputs: DeviceInputs, capture: Capture
    ) -> None:
        self._model = model
        self._eager = eager
        self._inputs = inputs
        self._capture = capture
        self._captured: dict[int, tuple[Program, Tensor]] = {}
        self._uncaptured = list(inputs.sizes)
        self._logits: Tensor | None = None

    def forward(self, step: Step, *, every: bool) -> None:
        size = self._inputs.padded(step.requests) if step.decodes else None
        program = None if size is None else self._program(size)
        if program is None or size is None:
            self._logits = None
            self._eager.forward(step, every=every)
        else:
            program[0].replay(size, size, size)
            self._logits = program[1]

    def logits(self, step: Step, outputs: int) -> Tensor:
        if self._logits is None:
            return self._eager.logits(step, outputs)
        return self._logits[:outputs]

    def prepare(self) -> bool:
        """Capture the largest size that is not yet; false if there is none."""
        if self._uncaptured:
            size = self._uncaptured[-1]
            self._inputs.nobody(size)
            self._program(size)
        return bool(self._uncaptured)

    def _program(self, size: int) -> tuple[Program, Tensor] | None:
        if size in self._uncaptured:
            self._uncaptured.remove(size)
            try:
                self._captured[size] = self._capture(lambda: self._decode(size), size, size, size)
            except torch.OutOfMemoryError:
                _log.warning(
                    "no memory is left to capture decoding steps of %d requests: such steps are "
                    "launched kernel by kernel; lower --gpu-memory-utilization",
                    size,
                )
        return self._captured.get(size)

    def _decode(self, size: int) -> Tensor:
        """A captured step asks for the logits of all its rows."""
        return self._model.logits(self._model.forward(self._inputs.decoding(size)))
