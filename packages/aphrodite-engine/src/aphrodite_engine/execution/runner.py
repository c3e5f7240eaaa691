"""The runner: a thread that executes plans, while the engine's thread makes the next one."""

from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

import torch
from aphrodite_kernels.attention import KVCache
from aphrodite_kernels.backend import Backend

from aphrodite_engine.execution.inputs import StepInputs
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.memory import allocate_caches
from aphrodite_engine.execution.programs import make_programs
from aphrodite_engine.execution.state import BatchState
from aphrodite_engine.execution.step_executor import StepExecutor
from aphrodite_engine.kv import KVGroup
from aphrodite_engine.model import Model
from aphrodite_engine.outputs import StepOutput
from aphrodite_engine.plan import Plan
from aphrodite_engine.sampling.sampler import Sampler


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """A step in the runner's thread."""

    result: SimpleQueue[StepOutput | BaseException]

    def wait(self) -> StepOutput:
        """Block until it is done; to be called once."""
        result = self.result.get()
        if isinstance(result, BaseException):
            raise result
        return result


class ModelRunner:
    """Implements engine.Runner with one worker thread.

    Plans and results go through queues written in C: of every step, an executor's futures take 65
    us on the runner's side, while no kernel runs, and these 25.
    """

    def __init__(self, executor: StepExecutor) -> None:
        self._executor = executor
        self._launched: SimpleQueue[tuple[Plan, LaunchedStep] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="runner", daemon=True)
        self._thread.start()

    def launch(self, plan: Plan) -> LaunchedStep:
        """Start a step behind those launched before, and return at once."""
        step = LaunchedStep(SimpleQueue())
        self._launched.put((plan, step))
        return step

    def close(self) -> None:
        """Wait for the launched steps and end the thread."""
        self._launched.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._launched.get()) is not None:
            plan, step = item
            try:
                step.result.put(self._executor.run(plan))
            except BaseException as error:  # whoever waits raises it
                step.result.put(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class KVMemory:
    """The pool to allocate."""

    groups: tuple[KVGroup, ...]
    num_blocks: int
    """The null block 0 included."""
    dtype: torch.dtype

    def allocate(self, block_size: int, device: torch.device) -> tuple[KVCache, ...]:
        """The caches of each layer."""
        return allocate_caches(self.groups, self.num_blocks, block_size, self.dtype, device)


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
    caches = memory.allocate(limits.block_size, backend.device)
    state = BatchState(limits, len(memory.groups), vocab_size, backend.device)
    inputs = StepInputs(limits, memory.groups, caches, state, backend)
    programs = make_programs(model, backend, inputs, eager=eager)
    return StepExecutor(state, inputs, programs, Sampler(backend), model.softcap)
