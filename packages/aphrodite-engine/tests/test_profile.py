"""Clocks change nothing, and tell where the time of decoding steps goes."""

import time

from aphrodite_engine.engine import Engine
from aphrodite_engine.outputs import EngineStats, StepOutput
from aphrodite_engine.plan import Plan, RowWork
from aphrodite_engine.profile import StepProfile, profiled


class Slow:
    """A scheduler and runner whose phases take known times."""

    unfinished = True
    stats = EngineStats()

    def __init__(self):
        self.steps = 0

    def plan(self):
        time.sleep(0.002)
        self.steps += 1
        work = [RowWork(row=row, start=5, count=1, samples=True) for row in range(3)]
        return Plan(step=self.steps, released=[], started=[], blocks=[], work=work)

    def commit(self, plan, output):
        time.sleep(0.004)
        return [plan.step]

    def launch(self, plan):
        return self

    def wait(self):
        time.sleep(0.008)
        return StepOutput([])

    def prepare(self):
        return False

    def close(self):
        self.closed = True


def test_phases_are_told_apart(caplog):
    slow = Slow()
    scheduler, runner = profiled((slow, slow))
    engine = Engine(scheduler, runner)
    assert [engine.step() for _ in range(4)] == [[], [1], [2], [3]]
    seconds = scheduler.profile.seconds
    assert 0.002 <= min(seconds["plan"][3]) < 0.004
    assert 0.004 <= min(seconds["commit"][3]) < 0.008
    assert min(seconds["wait"][3]) >= 0.008
    assert len(seconds["launch"][3]) == 4
    assert 6 <= scheduler.profile.host(3) < 8
    engine.close()
    assert slow.closed
    assert "3 rows       3" in caplog.text


def test_steps_that_do_not_decode_are_left_out():
    profile = StepProfile()
    profile.take("plan", 0, 1.0)
    assert profile.table().count("\n") == 0
