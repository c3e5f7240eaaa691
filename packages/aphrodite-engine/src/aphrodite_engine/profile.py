"""Where the host's time of every step goes: clocks around a scheduler and a runner.

Planning, launching and committing are the host's work and run beside the device; waiting is what
is left for it to do. A step takes the longer of the host's work and the device's.
"""

import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from aphrodite_engine.engine import Pending, Runner, Scheduler
from aphrodite_engine.outputs import EngineStats, RequestOutput, StepOutput
from aphrodite_engine.plan import Plan
from aphrodite_engine.request import EngineRequest

_PHASES = ("plan", "launch", "wait", "commit")
_EVERY = 10.0
"""Seconds between tables in the log."""
_KEPT = 1 << 16
"""Steps of each size that are remembered."""

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(slots=True)
class StepProfile:
    """Seconds of each phase, by the rows of the step; decoding steps only."""

    seconds: dict[str, dict[int, list[float]]] = field(
        default_factory=lambda: {phase: defaultdict(list) for phase in _PHASES}
    )
    _said: float = field(default_factory=time.monotonic)

    def clock(self, phase: str, rows: int, call: Callable[_P, _T]) -> Callable[_P, _T]:
        """The call, timed."""

        def timed(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            started = time.perf_counter()
            result = call(*args, **kwargs)
            self.take(phase, rows, time.perf_counter() - started)
            return result

        return timed

    def take(self, phase: str, rows: int, seconds: float) -> None:
        """One phase of one step."""
        if rows and len(kept := self.seconds[phase][rows]) < _KEPT:
            kept.append(seconds)

    def host(self, rows: int) -> float:
        """Median milliseconds of the host's work per decoding step of so many rows."""
        return sum(self._median(phase, rows) for phase in _PHASES if phase != "wait")

    def table(self) -> str:
        """Medians in milliseconds, for people."""
        heads = "  ".join(f"{name:>8}" for name in (*_PHASES, "host"))
        lines = [f"decoding, ms   steps  {heads}"]
        for rows in sorted(self.seconds["commit"]):
            steps = len(self.seconds["commit"][rows])
            numbers = [*(self._median(phase, rows) for phase in _PHASES), self.host(rows)]
            cells = "  ".join(f"{number:8.3f}" for number in numbers)
            lines.append(f"{rows:8} rows  {steps:6}  {cells}")
        return "\n".join(lines)

    def say(self, *, now: bool = False) -> None:
        """Put the table into the log, from time to time."""
        if now or time.monotonic() - self._said > _EVERY:
            self._said = time.monotonic()
            if self.seconds["commit"]:
                _log.warning("%s", self.table())

    def _median(self, phase: str, rows: int) -> float:
        kept = self.seconds[phase].get(rows)
        return 1e3 * statistics.median(kept) if kept else 0.0


@dataclass(frozen=True, slots=True)
class ProfiledScheduler:
    """Implements engine.Scheduler."""

    scheduler: Scheduler
    profile: StepProfile

    def add(self, request: EngineRequest) -> None:
        """Pass it on."""
        self.scheduler.add(request)

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """Pass it on."""
        self.scheduler.abort(request_id, choice)

    def rewind(self, request_id: str, choice: int, kept: int, banned: Sequence[int]) -> None:
        """Pass it on."""
        self.scheduler.rewind(request_id, choice, kept, banned)

    def plan(self) -> Plan:
        """Timed."""
        started = time.perf_counter()
        plan = self.scheduler.plan()
        self.profile.take("plan", decoding_rows(plan), time.perf_counter() - started)
        return plan

    def commit(self, plan: Plan, output: StepOutput) -> list[RequestOutput]:
        """Timed."""
        self.profile.say()
        return self.profile.clock("commit", decoding_rows(plan), self.scheduler.commit)(
            plan, output
        )

    @property
    def unfinished(self) -> bool:
        return self.scheduler.unfinished

    @property
    def stats(self) -> EngineStats:
        return self.scheduler.stats


@dataclass(frozen=True, slots=True)
class ProfiledStep:
    """Implements engine.Pending."""

    pending: Pending
    rows: int
    profile: StepProfile

    def wait(self) -> StepOutput:
        """Timed."""
        return self.profile.clock("wait", self.rows, self.pending.wait)()


@dataclass(frozen=True, slots=True)
class ProfiledRunner:
    """Implements engine.Runner."""

    runner: Runner
    profile: StepProfile

    def launch(self, plan: Plan) -> ProfiledStep:
        """Timed."""
        rows = decoding_rows(plan)
        pending = self.profile.clock("launch", rows, self.runner.launch)(plan)
        return ProfiledStep(pending, rows, self.profile)

    def prepare(self) -> bool:
        """Pass it on."""
        return self.runner.prepare()

    def close(self) -> None:
        """The last table."""
        self.runner.close()
        self.profile.say(now=True)


def profiled(engine: tuple[Scheduler, Runner]) -> tuple[ProfiledScheduler, ProfiledRunner]:
    """Clocks around the parts of an engine; both write into one profile."""
    scheduler, runner = engine
    profile = StepProfile()
    return ProfiledScheduler(scheduler, profile), ProfiledRunner(runner, profile)


def decoding_rows(plan: Plan) -> int:
    """Rows of a step in which all decode; 0 for another one."""
    decodes = not plan.started and all(item.count == 1 for item in plan.work)
    return len(plan.work) if decodes else 0
