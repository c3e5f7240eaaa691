"""Puts together what executes plans, for the CPU or for a device of its own."""

from dataclasses import dataclass
from typing import NamedTuple

from aphrodite_kernels.attention import KVCache
from aphrodite_kernels.backend import Backend

from aphrodite_engine.execution.captured_programs import CapturedPrograms
from aphrodite_engine.execution.device_inputs import DeviceInputs
from aphrodite_engine.execution.device_rows import DeviceRows
from aphrodite_engine.execution.host_inputs import HostInputs
from aphrodite_engine.execution.host_rows import HostRows
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.programs import EagerPrograms, Programs, RecordedPrograms
from aphrodite_engine.execution.runner import StreamRunner, ThreadRunner
from aphrodite_engine.execution.state import BatchState
from aphrodite_engine.execution.step import Inputs
from aphrodite_engine.execution.step_executor import StepExecutor
from aphrodite_engine.kv import KVGroup
from aphrodite_engine.model import Model
from aphrodite_engine.sampling.sampler import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class KVMemory:
    """The pool, and who shares it."""

    groups: tuple[KVGroup, ...]
    caches: tuple[KVCache, ...]
    """Per layer."""


def make_runner(executor: StepExecutor, backend: Backend) -> StreamRunner | ThreadRunner:
    """The runner for the backend's device."""
    return (ThreadRunner if backend.device.type == "cpu" else StreamRunner)(executor)


class Parts(NamedTuple):
    """What a step goes through before its tokens are sampled."""

    state: BatchState
    inputs: Inputs
    programs: Programs


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """What everything between a plan and its tokens is made of."""

    model: Model
    vocab_size: int
    backend: Backend
    memory: KVMemory
    limits: Limits
    eager: bool = False
    """The model itself runs each time, instead of a program."""

    def executor(self) -> StepExecutor:
        """All of it, allocated and recorded."""
        on_cpu = self.backend.device.type == "cpu"
        parts = self.on_the_host() if on_cpu else self.on_a_device()
        # On a CPU 16 MiB stay near, and fewer would be more calls of small ops.
        at_once = 2**22 if on_cpu else self.limits.rows * self.vocab_size
        return StepExecutor(*parts, Sampler(self.backend, at_once=at_once))

    def on_the_host(self) -> Parts:
        """Where kernels read what the host writes."""
        rows = HostRows(self.limits, len(self.memory.groups))
        inputs = HostInputs(self.limits, self.memory.groups, self.memory.caches, rows, self.backend)
        programs: Programs
        if self.eager or self.backend.capture is None or not self.backend.elastic:
            programs = EagerPrograms(self.model, self.backend, inputs)
        else:
            programs = RecordedPrograms(self.model, self.backend, inputs, self.backend.capture)
        return Parts(BatchState(self.limits, self.vocab_size, rows), inputs, programs)

    def on_a_device(self) -> Parts:
        """Where the device is sent what changes."""
        rows = DeviceRows(self.limits, len(self.memory.groups), self.backend.device)
        inputs = DeviceInputs(
            self.limits, self.memory.groups, self.memory.caches, rows, self.backend
        )
        programs: Programs = EagerPrograms(self.model, self.backend, inputs)
        if not self.eager and self.backend.capture is not None:
            programs = CapturedPrograms(self.model, programs, inputs, self.backend)
        return Parts(BatchState(self.limits, self.vocab_size, rows), inputs, programs)
