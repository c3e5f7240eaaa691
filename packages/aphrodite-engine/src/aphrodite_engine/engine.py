"""The engine: plan, run, commit.

It knows requests as token ids; text, HTTP and processes are elsewhere. The device works one step
ahead: step N + 1 is planned and launched before the tokens of step N are known to the host.
"""

from collections.abc import Sequence
from typing import Protocol

from aphrodite_engine.outputs import EngineStats, RequestOutput, StepOutput
from aphrodite_engine.plan import Plan
from aphrodite_engine.request import EngineRequest


class Scheduler(Protocol):
    """Decides what runs; owns requests and blocks."""

    def add(self, request: EngineRequest) -> None:
        """Queue a request. RequestError if it can never run."""
        ...

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """Forget a request (or one of its completions) and free what it holds.

        Unknown ids are ignored.
        """
        ...

    def rewind(self, request_id: str, choice: int, kept: int, banned: Sequence[int]) -> None:
        """Take a completion back to its first `kept` tokens; `banned` cannot be the next one."""
        ...

    def plan(self) -> Plan:
        """The next step. `work` is empty if nothing can run now."""
        ...

    def commit(self, plan: Plan, output: StepOutput) -> list[RequestOutput]:
        """Take the result of a plan, in the order the plans were made."""
        ...

    @property
    def unfinished(self) -> bool:
        """Requests are waiting or running."""
        ...

    @property
    def stats(self) -> EngineStats: ...


class Pending(Protocol):
    """A step that the device works on."""

    def wait(self) -> StepOutput:
        """Block until it is done."""
        ...


class Runner(Protocol):
    """Executes plans in the order given."""

    def launch(self, plan: Plan) -> Pending:
        """Start a step and return at once."""
        ...

    def prepare(self) -> bool:
        """Make ready one of the things that a later step would wait for; false: all are."""
        ...

    def close(self) -> None:
        """Stop after the launched steps and free the device."""
        ...


class Engine:
    """Continuous batching over one model."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._launched: tuple[Plan, Pending] | None = None

    def add(self, request: EngineRequest) -> None:
        """Queue a request. RequestError if it can never run."""
        self._scheduler.add(request)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """Forget a request, or one of its completions; unknown ids are ignored."""
        self._scheduler.abort(request_id, choice)

    def rewind(self, request_id: str, choice: int, kept: int, banned: Sequence[int]) -> None:
        """Take a completion back to its first `kept` tokens; `banned` cannot be the next one.

        Its news from here on count one rewind more. Unknown ids are ignored.
        """
        self._scheduler.rewind(request_id, choice, kept, banned)

    def step(self) -> list[RequestOutput]:
        """Launch the next step, then commit the one before it."""
        plan = self._scheduler.plan()
        before, self._launched = self._launched, self._launch(plan)
        return self._scheduler.commit(before[0], before[1].wait()) if before else []

    def _launch(self, plan: Plan) -> tuple[Plan, Pending] | None:
        return (plan, self._runner.launch(plan)) if plan.work or plan.released else None

    def prepare(self) -> bool:
        """While nothing is to do: make ready what a later step would wait for; false: all is."""
        return self._runner.prepare()

    @property
    def unfinished(self) -> bool:
        """Requests are waiting or running, or a launched step is not committed."""
        return self._scheduler.unfinished or self._launched is not None

    @property
    def stats(self) -> EngineStats:
        return self._scheduler.stats

    def close(self) -> None:
        """Finish the launched step and free the device."""
        self._runner.close()
