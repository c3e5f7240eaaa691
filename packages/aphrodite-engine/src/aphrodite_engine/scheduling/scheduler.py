"""One token budget per step: who computes how many tokens, in which blocks.

A request has tokens known or on their way and tokens computed; a step closes part of the gap. A
prompt is a wide gap, closed in chunks; a decoding request has a gap of one. There are no modes.

Time runs one step apart: plan N + 1 is made before the result of plan N is committed.

    plan N      commit N - 1      plan N + 1      commit N      plan N + 2
    launch N                      launch N + 1                  launch N + 2

What makes that safe:

- A request that ends at commit N may have work in plan N + 1, already launched. Its output is
  discarded when N + 1 is committed. Its blocks and its row are free from commit N on: whoever
  gets them gets them in plan N + 2 or later, and the device executes plans strictly in order, so
  the late write of N + 1 is over before the new owner writes or reads there. The same holds for
  aborts, for preemption and for blocks that left a window: every plan that could touch a block for
  its former owner was launched before the plan that gives it to the next one.
- Such a late write never hits a block that another request shares. Only full blocks whose steps
  have been committed are published, and a request writes behind the end of what it shares.
- What is computed for a token that is on its way is as good as any other, once that token is
  known to belong to the request; only then (at commit) is it hashed.

What makes it end: the order of policy.py is total, whatever is admitted can run alone (intake.py),
and a request short of blocks takes them from the last one running, which may be itself. So the
first one always moves on.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from aphrodite_engine.errors import RequestError
from aphrodite_engine.kv import KVGroup
from aphrodite_engine.outputs import EngineStats, RequestOutput, RowOutput, StepOutput
from aphrodite_engine.plan import BlockUpdate, Plan, RowStart, RowWork
from aphrodite_engine.request import EngineRequest, Request, Status
from aphrodite_engine.scheduling.blocks import BlockPool
from aphrodite_engine.scheduling.completion import take_tokens
from aphrodite_engine.scheduling.counts import Counts
from aphrodite_engine.scheduling.intake import Intake, SchedulingLimits
from aphrodite_engine.scheduling.policy import order_named
from aphrodite_engine.scheduling.prefix import Hit, PrefixCache
from aphrodite_engine.scheduling.prompt_scores import PromptScores
from aphrodite_engine.scheduling.roster import Roster
from aphrodite_engine.scheduling.tables import BlockTables


@dataclass(slots=True)
class _Draft:
    """A plan in the making."""

    budget: int
    """Tokens that are still free."""
    started: list[RowStart] = field(default_factory=list[RowStart])
    blocks: list[BlockUpdate] = field(default_factory=list[BlockUpdate])
    work: list[RowWork] = field(default_factory=list[RowWork])
    requests: list[Request] = field(default_factory=list[Request])
    """Aligned with `work`."""


class TokenBudgetScheduler:
    """Implements engine.Scheduler."""

    def __init__(self, groups: Sequence[KVGroup], limits: SchedulingLimits) -> None:
        self._limits = limits
        self._intake = Intake(groups, limits)
        self._pool = BlockPool(limits.num_blocks, limits.block_size)
        self._tables = BlockTables(groups, self._pool)
        self._prefix = PrefixCache(groups, self._pool)
        # Room for running requests to grow after one more is admitted: 1 % of the pool.
        self._watermark = self._pool.capacity // 100
        self._roster = Roster(order_named(limits.policy))
        self._scores = PromptScores()
        self._rows = list(range(limits.max_num_seqs))
        self._released: list[int] = []
        # Per step: who computes, and how often each had been taken back.
        self._launched: dict[int, list[tuple[Request, int]]] = {}
        # The first in line when blocks were short, and how many it takes: looked at again then.
        self._refused: Request | None = None
        self._refused_for = 0
        self._counts = Counts()

    def add(self, request: EngineRequest) -> None:
        """Queue a request. RequestError if it can never run."""
        if request.id in self._roster:
            raise RequestError(f"request id {request.id!r} is in use; choose another", "id")
        members = self._intake.accept(request)
        shared = (len(request.prompt) - 1) // self._limits.block_size
        self._roster.add(members, leaders=1 if shared else len(members))
        self._scores.expect(members[0])

    def abort(self, request_id: str, choice: int | None = None) -> None:
        """Forget a request (or one of its completions) and free what it holds.

        Unknown ids are ignored. There is no output: whoever aborts knows.
        """
        # From the last to the first: a parked completion is not promoted only to be forgotten.
        for member in reversed(self._roster.members(request_id)):
            if choice is None or member.choice == choice:
                self._finish(member)

    def rewind(self, request_id: str, choice: int, kept: int, banned: Sequence[int]) -> None:
        """Take a completion back to its first `kept` tokens; `banned` cannot be the next one.

        It starts again as after a preemption, with the blocks that the prefix cache still has. What
        is planned or on its way is dropped when it is committed. Unknown ids are ignored.
        """
        for request in self._roster.members(request_id):
            if request.choice != choice:
                continue
            if request.status is Status.RUNNING:
                self._vacate(request)
                self._roster.suspend(request)
            elif request.status is Status.HELD:
                self._roster.resume(request)
            request.rewind(kept, tuple(banned), self._limits.block_size)
            self._refused = None

    def _finish(self, request: Request) -> None:
        """Forget a completion, wherever it stands."""
        if request.status is Status.RUNNING:
            self._vacate(request)
        self._scores.forget(request)
        self._roster.finish(request)

    def _end(self, request: Request) -> None:
        """A completion came to its end; one that may be taken back waits for its reader's word."""
        if request.params.bans is None:
            self._finish(request)
            return
        if request.status is Status.RUNNING:
            self._vacate(request)
        request.computed = request.committed = request.pending = 0
        self._roster.hold(request)

    def _preempt(self, request: Request) -> None:
        """Put a request back in line; it will compute everything again that nobody kept."""
        self._vacate(request)
        request.computed = request.committed = 0
        request.preemptions += 1
        self._counts.preemptions += 1
        self._roster.suspend(request)

    def _vacate(self, request: Request) -> None:
        """Give back row and blocks."""
        assert request.row is not None, "a running request has no row"
        self._tables.release(request)
        self._released.append(request.row)
        heapq.heappush(self._rows, request.row)
        request.row = None

    def plan(self) -> Plan:
        """The next step. `work` is empty if nothing can run now."""
        assert self._roster or self._pool.available == self._pool.capacity, "blocks have leaked"
        draft = _Draft(self._limits.max_num_batched_tokens)
        if self._continue_running(draft):
            self._admit_waiting(draft)
        released, self._released = self._released, []
        step = self._counts.steps
        if draft.work or released:
            self._counts.steps += 1
            self._launched[step] = [(request, request.rewinds) for request in draft.requests]
        return Plan(
            step=step,
            released=released,
            started=draft.started,
            blocks=draft.blocks,
            work=draft.work,
        )

    def _continue_running(self, draft: _Draft) -> bool:
        """Give each running request a token, and the spare ones to prompts. False: preempted.

        One token each always fits, as there are at least as many tokens as rows; so neither
        decoding nor prompts can starve the other.
        """
        preemptions = self._counts.preemptions
        spare = draft.budget - len(self._roster.running)
        for request in list(self._roster.running):
            if request.status is not Status.RUNNING:
                continue
            todo = min(request.length, request.positions) - request.computed
            if todo <= 0:
                continue
            count = min(todo, 1 + spare)
            if self._cover(draft, request, request.computed + count):
                spare -= count - 1
                self._work(draft, request, count)
        return self._counts.preemptions == preemptions

    def _cover(self, draft: _Draft, request: Request, stop: int) -> bool:
        """Get blocks for the positions before `stop`. False: the request itself had to go."""
        if self._tables.covers(request, stop):
            return True
        updates = self._tables.trim(request, request.computed)
        # The last one comes after this one or is this one: it has no work in this plan yet.
        while self._tables.missing(request, stop) > self._pool.available:
            victim = self._roster.running.last
            assert victim is not self._roster.running.first, (
                "a request that cannot run alone was admitted"
            )
            self._preempt(victim)
            if victim is request:
                return False
        draft.blocks += updates
        draft.blocks += self._tables.extend(request, stop)
        return True

    def _work(self, draft: _Draft, request: Request, count: int) -> None:
        """Plan the next `count` tokens of a request."""
        assert request.row is not None, "a request without a row has work"
        start = request.computed
        stop = start + count
        samples = stop == request.length and request.max_tokens > 0
        draft.work.append(
            RowWork(
                row=request.row,
                start=start,
                count=count,
                samples=samples,
                prompt_logprobs=self._scores.wanted(request, start, stop),
            )
        )
        draft.requests.append(request)
        draft.budget -= count
        request.computed = stop
        request.pending += samples

    def _admit_waiting(self, draft: _Draft) -> None:
        """Start requests in order, as long as there are tokens, rows and blocks."""
        while draft.budget and self._rows and self._roster.waiting:
            request = self._roster.waiting.first
            # Nothing is admitted in the step of a preemption, and by the next one its token came.
            assert not request.pending, "a request that waits has a token on its way"
            hit = self._affordable(request)
            if hit is None:
                return
            self._start(draft, request, hit)

    def _affordable(self, request: Request) -> Hit | None:
        """What a request can share, if there are blocks for the rest of all it knows."""
        short = self._pool.available < self._refused_for
        if request is self._refused and short and self._roster.running:
            return None
        scored = request in self._scores
        hit = self._prefix.miss() if scored else self._prefix.lookup(request)
        cost = self._tables.admission_cost(request, hit, self._limits.max_num_batched_tokens)
        if self._roster.running:
            cost += self._watermark
        if cost > self._pool.available:
            self._refused, self._refused_for = request, cost
            for table in hit.blocks:
                self._pool.touch(table)
            return None
        return hit

    def _start(self, draft: _Draft, request: Request, hit: Hit) -> None:
        """Give a request a row, blocks and its first tokens."""
        request.row = heapq.heappop(self._rows)
        request.computed = request.committed = hit.length
        self._roster.start(request)
        if not request.preemptions and not request.rewinds:
            self._count_prompt(request, hit)
        count = min(request.known - hit.length, draft.budget)
        draft.blocks += self._tables.open(request, hit, hit.length + count)
        draft.started.append(_row_start(request))
        self._work(draft, request, count)

    def _count_prompt(self, request: Request, hit: Hit) -> None:
        request.cached = hit.length
        self._counts.prompt_tokens += len(request.prompt) - hit.length
        if self._limits.enable_prefix_caching and request not in self._scores:
            self._counts.prefix_queries += len(request.prompt)
            self._counts.prefix_hits += hit.length

    def commit(self, plan: Plan, output: StepOutput) -> list[RequestOutput]:
        """Take the result of a plan, in the order the plans were made."""
        requests = self._launched.pop(plan.step)
        outputs: list[RequestOutput] = []
        for (request, rewinds), work, row in zip(requests, plan.work, output.rows, strict=True):
            over = request.status in (Status.FINISHED, Status.HELD)
            if not over and rewinds == request.rewinds:
                news = self._commit_row(request, work, row)
                if news is not None:
                    outputs.append(news)
        return outputs

    def _commit_row(self, request: Request, work: RowWork, row: RowOutput) -> RequestOutput | None:
        if row.error is not None:
            self._finish(request)
            return _failed(request, row.error)
        stop = work.start + work.count
        # A request that was preempted since then has lost the blocks, but not the token.
        if request.status is Status.RUNNING:
            self._prefix.publish(request, stop)
            request.committed = stop
        if work.prompt_logprobs:
            self._scores.take(request, work, row)
        if stop < len(request.prompt):
            return None
        if request.params.n > 1 and request.status is Status.RUNNING:
            self._roster.unpark(request)
        return self._commit_tokens(request, work, row)

    def _commit_tokens(
        self, request: Request, work: RowWork, row: RowOutput
    ) -> RequestOutput | None:
        """Take what a row that reached the end of the prompt sampled."""
        if not work.samples and request.max_tokens:
            return None
        assert len(row.tokens) >= work.samples, "a row that samples gave no token"
        request.pending -= work.samples
        request.remembered = row.remembered
        if row.remembered and request.params.bans is not None:
            request.memories.append(row.remembered)
        progress = take_tokens(request, row.tokens, self._limits.end_tokens)
        self._counts.generation_tokens += len(progress.tokens)
        scores = self._scores.hand_over(request)
        if progress.finish_reason is not None:
            self._end(request)
        return RequestOutput(
            id=request.id,
            choice=request.choice,
            tokens=progress.tokens,
            logprobs=row.logprobs[: len(progress.tokens)],
            prompt_logprobs=scores,
            explanations=row.explanations[: len(progress.tokens)],
            finish_reason=progress.finish_reason,
            stop_reason=progress.stop_reason,
            cached_tokens=request.cached,
            rewinds=request.rewinds,
        )

    @property
    def context(self) -> int:
        """Most tokens that a request can have: by the model's length, and by the KV memory."""
        return self._intake.context

    @property
    def unfinished(self) -> bool:
        """Requests are waiting or running; those that only their reader can continue are not."""
        return self._roster.busy

    @property
    def stats(self) -> EngineStats:
        """Counts since start and gauges of now."""
        return self._counts.stats(len(self._roster.running), self._roster.idle, self._pool)

    def check(self) -> None:
        """Verify every invariant of rows and blocks; for tests, it is slow."""
        running = list(self._roster.running)
        self._pool.check(table for request in running for table in request.blocks)
        rows = [request.row for request in running if request.row is not None]
        assert sorted(self._rows + rows) == list(range(self._limits.max_num_seqs)), "rows"
        for request in self._roster.all():
            if request.status is Status.WAITING:
                assert request.row is None, "a waiting request has a row"
                assert not request.blocks, "a waiting request has blocks"


def _row_start(request: Request) -> RowStart:
    """What a worker must know of a request that takes a row."""
    assert request.row is not None, "a request starts without a row"
    return RowStart(
        row=request.row,
        request=request.id,
        choice=request.choice,
        tokens=request.tokens(0, request.known),
        prompt_length=len(request.prompt),
        params=request.params_now,
        seed=request.seed,
        stop_tokens=sorted(request.stop_tokens),
        remembered=request.remembered,
    )


def _failed(request: Request, error: str) -> RequestOutput:
    """News of a completion that is over by a fault."""
    return RequestOutput(
        id=request.id,
        choice=request.choice,
        tokens=[],
        finish_reason="error",
        error=error,
        rewinds=request.rewinds,
    )
