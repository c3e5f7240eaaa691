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


def make_executor(
    model: Model,
    vocab_size: int,
    backend: Backend,
    memory: KVMemory,
    limits: Limits,
    *,
    eager: bool = False,
) -> StepExecutor:
    """Everything between a plan and its tokens, allocated and recorded."""
    on_cpu = backend.device.type == "cpu"
    make = parts_on_the_host if on_cpu else parts_on_a_device
    state, inputs, programs = make(model, vocab_size, backend, memory, limits, eager=eager)
    # On a CPU 2 MiB of logits stay in its cache; a device has room for all at once.
    sampler = Sampler(backend, at_once=2**19 if on_cpu else limits.rows * vocab_size)
    return StepExecutor(state, inputs, programs, sampler, model.softcap)


def parts_on_the_host(
    model: Model,
    vocab_size: int,
    backend: Backend,
    memory: KVMemory,
    limits: Limits,
    *,
    eager: bool,
) -> Parts:
    """Where kernels read what the host writes."""
    rows = HostRows(limits, len(memory.groups))
    inputs = HostInputs(limits, memory.groups, memory.caches, rows, backend)
    programs: Programs
    if eager or backend.capture is None or not backend.elastic:
        programs = EagerPrograms(model, backend, inputs)
    else:
        programs = RecordedPrograms(model, backend, inputs, backend.capture)
    return Parts(BatchState(limits, vocab_size, rows), inputs, programs)


def parts_on_a_device(
    model: Model,
    vocab_size: int,
    backend: Backend,
    memory: KVMemory,
    limits: Limits,
    *,
    eager: bool,
) -> Parts:
    """Where the device is sent what changes."""
    rows = DeviceRows(limits, len(memory.groups), backend.device)
    inputs = DeviceInputs(limits, memory.groups, memory.caches, rows)
    programs: Programs = EagerPrograms(model, backend, inputs)
    if not eager and backend.capture is not None:
        programs = CapturedPrograms(model, programs, inputs, backend.capture)
    return Parts(BatchState(limits, vocab_size, rows), inputs, programs)
