"""Runners: they execute plans in order, while the engine's thread makes the next one."""

from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from weakref import finalize

from aphrodite_engine.execution.step_executor import StepExecutor
from aphrodite_engine.execution.underway import Underway
from aphrodite_engine.outputs import StepOutput
from aphrodite_engine.plan import Plan


class StreamRunner:
    """Implements engine.Runner where the device has a queue of its own."""

    def __init__(self, executor: StepExecutor) -> None:
        self._executor = executor

    def launch(self, plan: Plan) -> Underway:
        """Put a step in the device's queue, and return at once."""
        return self._executor.launch(plan)

    def prepare(self) -> bool:
        """Make ready one of the things that a later step would wait for; false: all are."""
        return self._executor.prepare()

    def close(self) -> None:
        """The queue ends with the process."""


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


Launched = SimpleQueue[tuple[Plan, LaunchedStep] | None]
"""Steps in order; None: no more will come."""


class ThreadRunner:
    """Implements engine.Runner where launching a step is computing it: in one worker thread.

    Plans and results go through queues written in C: of every step, an executor's futures take 65
    us on the runner's side, while no kernel runs, and these 25. The thread ends with its runner, or
    before the interpreter: one that were cut off in the middle of a step would abort the process.
    """

    def __init__(self, executor: StepExecutor) -> None:
        self._executor = executor
        self._launched: Launched = SimpleQueue()
        work = (executor, self._launched)
        thread = Thread(target=_work, args=work, name="runner", daemon=True)
        thread.start()
        self._end = finalize(self, _end, self._launched, thread)

    def launch(self, plan: Plan) -> LaunchedStep:
        """Start a step behind those launched before, and return at once."""
        step = LaunchedStep(SimpleQueue())
        self._launched.put((plan, step))
        return step

    def prepare(self) -> bool:
        """All is ready."""
        return False

    def close(self) -> None:
        """Wait for the launched steps and end the thread."""
        self._end()


def _work(executor: StepExecutor, launched: Launched) -> None:
    while (item := launched.get()) is not None:
        plan, step = item
        try:
            step.result.put(executor.launch(plan).wait())
        except BaseException as error:  # whoever waits raises it
            step.result.put(error)


def _end(launched: Launched, thread: Thread) -> None:
    launched.put(None)
    thread.join()
