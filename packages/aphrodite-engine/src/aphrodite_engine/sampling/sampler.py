"""From logits to tokens.

The sampler owns the parameters of every row, and what stages remember of it, from `start` to
`release`. A step's `sample` makes float32 copies of the logits, leads them through the stages their
rows ask for and draws one token each; rows without stages and without draws cost one argmax. What a
row gets depends on its own logits, parameters, what is remembered of it and (seed, choice,
position) alone.

Knows nothing of plans and models, and keeps no tokens: the caller owns the matrix of tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_engine.sampling.batch import Batch, Index, Pass, make_batch, places_of
from aphrodite_engine.sampling.explanation import Explanation
from aphrodite_engine.sampling.history import read_history
from aphrodite_engine.sampling.logprobs import Scores, score, to_host
from aphrodite_engine.sampling.memory import Memory, Remembered
from aphrodite_engine.sampling.recurrence import Recurrence
from aphrodite_engine.sampling.row import Row, RowSpec, make_row
from aphrodite_engine.sampling.rows import Draws, History, Purpose, Rows
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs
from aphrodite_engine.sampling.watch import Seen, Watch

_BROKEN = "the model gave numbers that are not finite, or every token is banned"


@dataclass(frozen=True, slots=True)
class Draw:
    """One sampled token, on the host."""

    token: int
    logprobs: TokenLogprobs | None
    """If the row asked for them."""
    remembered: dict[str, float]
    """What its stages remember of the row from here on."""
    error: str | None
    """The row failed: its token means nothing. Other rows are unaffected."""
    explanation: Explanation | None = None
    """If the row asked for it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the rows of a step stand: their ids, and the index of the token that each will get."""

    rows: list[int]
    positions: list[int]
    """Counted from the prompt's first token."""
    on_device: Tensor
    """[R] int32: the positions, on the device."""

    def part(self, span: slice) -> "Standing":
        """Neighbouring rows."""
        return Standing(self.rows[span], self.positions[span], self.on_device[span])


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens of a step, on the device."""

    tokens: Tensor
    """[R] int32; some token where the row failed."""
    valid: Tensor
    """[R] bool: false where the row failed."""
    scores: Scores | None
    """Of the rows that asked for log-probabilities, in order."""
    counts: tuple[int | None, ...]
    """Per row: how many likeliest tokens it asked for."""
    remembered: list[Remembered]
    explained: Mapping[int, Seen] = field(default_factory=dict[int, Seen])
    """Of the rows that asked for it, by place."""

    def map(self, move: Callable[[Tensor], Tensor]) -> "Sampled":
        """The same elsewhere."""
        scores = None if self.scores is None else self.scores.map(move)
        return Sampled(
            tokens=move(self.tokens),
            valid=move(self.valid),
            scores=scores,
            counts=self.counts,
            remembered=[part.map(move) for part in self.remembered],
            explained={place: seen.map(move) for place, seen in self.explained.items()},
        )

    def read(self) -> list[Draw]:
        """Fetch from the device; waits for it."""
        wanted = [count for count in self.counts if count is not None]
        scores = iter(self.scores.read(wanted) if self.scores else [])
        remembered: list[dict[str, float]] = [{} for _ in self.counts]
        for part in self.remembered:
            part.read_into(remembered)
        columns = (to_host(self.tokens), to_host(self.valid), self.counts, remembered)
        return [
            Draw(
                token=token,
                logprobs=None if count is None else next(scores),
                remembered=kept,
                error=None if good else _BROKEN,
                explanation=self._explanation(place, token) if good else None,
            )
            for place, (token, good, count, kept) in enumerate(zip(*columns, strict=True))
        ]

    def _explanation(self, place: int, token: int) -> Explanation | None:
        seen = self.explained.get(place)
        return None if seen is None else seen.read(token)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What came of a batch."""

    tokens: Tensor
    """[R] int32."""
    valid: Tensor
    """[R] bool."""
    changes: Sequence["_Change"]
    """What the stages that remember made of the tokens."""
    explained: Mapping[int, Seen]
    """By place among the rows of the step."""
    beams: Mapping[int, Tensor]
    """Logits [V] float32 after the stages, of the rows of beams; by place likewise."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What a stage remembers after a token."""

    stage: type[Stage]
    rows: Tensor
    """[n] int64: ids."""
    places: Sequence[int]
    """The same rows, among those of the step."""
    numbers: Mapping[str, Tensor]
    """[n, 1] each."""

    def told(self) -> Remembered:
        """For the host."""
        columns = torch.cat([self.numbers[name] for name in self.stage.remembers], 1)
        return Remembered(self.stage, self.places, columns)


@dataclass(frozen=True, slots=True)
class _Composition:
    """All rows of a step."""

    rows: tuple[int, ...]
    batches: list[Batch]
    scored: Index | None
    counts: tuple[int | None, ...]
    lasts: dict[int, float]
    """Places of rows some of whose stages will be over, and up to which position none is."""

    def holds(self, rows: tuple[int, ...], positions: Sequence[int]) -> bool:
        """It is right for these rows, standing there."""
        if self.rows != rows:
            return False
        return all(positions[place] <= last for place, last in self.lasts.items())

    @property
    def plain(self) -> bool:
        """Every row takes its likeliest token."""
        return all(batch.plain for batch in self.batches)

    def parts(self, logits: Tensor) -> list[tuple[Batch, Tensor]]:
        """The batches, each with its logits."""
        if len(self.batches) == 1:
            return [(self.batches[0], logits)]
        return [(batch, logits[batch.span]) for batch in self.batches]


class Sampler:
    """Samples rows that were started and not yet released.

    Use from one thread::

        sampler.start(row_start)                 # a request takes (or takes again) a row
        sampled = sampler.sample(logits, standing, history)
        sampler.release(row)

    `start` on a row that is taken replaces it.

    Args:
        backend: draws the random numbers, on its device.
        at_once: logits that go through the stages at a time, about.
    """

    def __init__(self, backend: Backend, *, at_once: int = 2**22) -> None:
        self._backend = backend
        self._at_once = at_once
        self._rows: dict[int, Row] = {}
        self._memory = Memory(backend.device)
        self._recurrence = Recurrence(backend.device)
        self._composition: _Composition | None = None
        self._copy: Tensor | None = None

    def start(self, spec: RowSpec) -> None:
        """Take a row's parameters. Its token ids were checked (`params.check_vocabulary`)."""
        row = self._rows[spec.row] = make_row(spec)
        self._memory.start(spec, row.chain)
        self._recurrence.release(spec.row)
        if any(stage.needs_repeats for stage in row.chain):
            self._recurrence.start(spec.row, spec.tokens)
        self._composition = None

    def release(self, row: int) -> None:
        """Forget a row, if it was taken."""
        self._rows.pop(row, None)
        self._recurrence.release(row)
        self._composition = None

    def sample(
        self,
        logits: Tensor,
        standing: Standing,
        history: Tensor,
        likeliest: tuple[Tensor, Tensor] | None = None,
        *,
        spare: bool = False,
    ) -> Sampled:
        """Sample one token for each row of logits, without waiting for the device.

        Args:
            logits: [R, V] of any floating dtype; left alone, save where they are spare.
            standing: the rows of the logits, in their order; at least one.
            history: [max rows, max length] int32 on the device, indexed by row id; each row holds
                its tokens before its position. Read only by stages that need it.
            likeliest: what `Backend.argmax` gives for these logits, if it is known already.
            spare: the logits may be overwritten.
        """
        composition = self._compose(standing, logits.shape[1])
        own = spare and composition.scored is None and logits.dtype == torch.float32
        if likeliest is not None and composition.plain:
            chosen = [_Chosen(*likeliest, [], {}, {})]
        else:
            chosen = [
                self._run(batch, part, standing.part(batch.span), history, own=own)
                for batch, part in composition.parts(logits)
            ]
        tokens, valid = chosen[0].tokens, chosen[0].valid
        if len(chosen) > 1:
            tokens = torch.cat([part.tokens for part in chosen])
            valid = torch.cat([part.valid for part in chosen])
        scores = None
        if composition.scored is not None:
            most = max(count or 0 for count in composition.counts)
            scores = score(
                logits[composition.scored],
                tokens[composition.scored].long(),
                most,
                self._backend.logsumexp,
                _shaped(logits, chosen, composition.scored),
            )
        changes = [change for part in chosen for change in part.changes]
        for change in changes:  # at the end, when all went well
            self._memory.write(change.stage, change.rows, change.numbers)
        remembered = [change.told() for change in changes if not change.stage.recalls_all]
        explained = {place: seen for part in chosen for place, seen in part.explained.items()}
        return Sampled(tokens, valid, scores, composition.counts, remembered, explained)

    def score(self, logits: Tensor, tokens: Tensor, count: int) -> Scores:
        """Score tokens [m] int64 under logits [m, V], with the `count` likeliest."""
        return score(logits, tokens, count, self._backend.logsumexp)

    def _compose(self, standing: Standing, vocabulary: int) -> _Composition:
        """Put rows together; they stay together until one starts or leaves, or a stage is over."""
        rows, positions = tuple(standing.rows), standing.positions
        if self._composition is None or not self._composition.holds(rows, positions):
            known = [self._rows[row].at(at) for row, at in zip(rows, positions, strict=True)]
            device = self._backend.device
            costly = any(row.chain or not row.greedy for row in known)
            parts = -(-len(rows) * vocabulary // self._at_once) if costly else 1
            size = -(-len(rows) // parts)
            spans = [slice(at, min(at + size, len(rows))) for at in range(0, len(rows), size)]
            counts = tuple(row.logprobs for row in known)
            self._composition = _Composition(
                rows=rows,
                batches=[make_batch(span, rows[span], known[span], device) for span in spans],
                scored=places_of([count is not None for count in counts], device),
                counts=counts,
                lasts={
                    place: row.last_place
                    for place, row in enumerate(known)
                    if row.last_place < math.inf
                },
            )
        return self._composition

    def _run(
        self, batch: Batch, logits: Tensor, standing: Standing, tokens: Tensor, *, own: bool
    ) -> _Chosen:
        """Lead a batch through its stages and choose; own: its logits may be overwritten."""
        if batch.plain:
            return _Chosen(*self._backend.argmax(logits), [], {}, {})
        draws = Draws(batch.seeds, batch.choices, standing.on_device, self._backend.uniform)
        if batch.passes and not own:
            logits = self._copied(logits)
        watch = None
        if batch.explained:
            watch = Watch(batch.explained, logits, self._backend)
        seen: list[tuple[Pass, Rows]] = []
        for step in batch.passes:
            history = None
            if step.stage.needs_history:
                history = self._history(step, batch, standing, tokens)
            remembered: Mapping[str, Tensor] = {}
            if step.stage.remembers:
                remembered = self._memory.read(step.stage, batch.rows[step.index])
            rows = step.rows(self._backend, draws, history, remembered)
            step.apply(logits, rows)
            if watch is not None:
                watch.see(step.members, logits)
            if remembered:
                seen.append((step, rows))
        explained = {} if watch is None else watch.seen(batch.span.start)
        places = batch.beams if batch.passes else ()
        beams = {batch.span.start + place: logits[place].clone() for place in places}
        drawn, valid = self._choose(batch, logits.float(), draws)
        changes = [_change(batch, step, rows, drawn) for step, rows in seen]
        return _Chosen(drawn, valid, changes, explained, beams)

    def _history(self, step: Pass, batch: Batch, standing: Standing, tokens: Tensor) -> History:
        """Of the rows of a pass."""
        rows = [standing.rows[place] for place in step.members]
        lengths = [standing.positions[place] for place in step.members]
        prompts = [batch.prompt_lengths[place] for place in step.members]
        ids, shape = batch.rows[step.index], tokens.shape
        return read_history(
            tokens[ids, : max(lengths)],
            standing.on_device[step.index, None].long(),
            batch.prompts[step.index, None],
            max(length - prompt for length, prompt in zip(lengths, prompts, strict=True)),
            lambda ends: self._recurrence.follow(rows, lengths, ids, shape, ends),
        )

    def _copied(self, logits: Tensor) -> Tensor:
        """In float32, where the copy before stood: on a CPU, new memory costs more than copying."""
        rows, width = logits.shape
        copy = self._copy
        if copy is None or copy.shape[1] != width or len(copy) < rows:
            copy = self._copy = torch.empty_like(logits, dtype=torch.float32)
        return copy[:rows].copy_(logits)

    def _choose(self, batch: Batch, logits: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Tokens [R] int32 and which rows are valid [R] bool."""
        if batch.drawn is None:
            return self._backend.argmax(logits)
        uniform = draws.select(batch.drawn).uniform(Purpose.DRAW)
        drawn = self._backend.draw(logits[batch.drawn], uniform)
        if batch.greedy is None:
            return drawn
        tokens = torch.empty(len(logits), dtype=torch.int32, device=logits.device)
        valid = torch.empty(len(logits), dtype=torch.bool, device=logits.device)
        tokens[batch.drawn], valid[batch.drawn] = drawn
        tokens[batch.greedy], valid[batch.greedy] = self._backend.argmax(logits[batch.greedy])
        return tokens, valid


def _shaped(logits: Tensor, chosen: Sequence[_Chosen], scored: Index) -> Tensor | None:
    """Logits to score, where those of beams are not the model's own."""
    beams = {place: own for part in chosen for place, own in part.beams.items()}
    if not beams:
        return None
    shaped = logits.float().clone()
    for place, own in beams.items():
        shaped[place] = own
    return shaped[scored]


def _change(batch: Batch, step: Pass, rows: Rows, tokens: Tensor) -> _Change:
    """What a stage remembers after the tokens [R] of a batch."""
    numbers = step.stage.update(tokens[step.index, None].long(), rows)
    places = [batch.span.start + place for place in step.members]
    return _Change(step.stage, batch.rows[step.index], places, numbers)
