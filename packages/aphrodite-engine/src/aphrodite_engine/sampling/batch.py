"""How the rows of a batch go through their stages together.

Each row has a chain of stages, in its own order. Rows that stand before the same stage take it in
one pass; a batch is the list of passes, with every parameter already on the device. It lasts as
long as the same rows are sampled.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.row import Row
from aphrodite_engine.sampling.rows import Draws, Entries, History, Rows
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.upload import upload

Index: TypeAlias = Tensor | slice


@dataclass(frozen=True, slots=True)
class Pass:
    """One stage over the rows that take it together."""

    stage: type[Stage]
    members: tuple[int, ...]
    """Places in the batch, ascending."""
    index: Index
    """The same, to index with; a slice if they are neighbours."""
    columns: Mapping[str, Tensor]
    given: frozenset[str]
    entries: Mapping[str, Entries]
    tables: Mapping[str, Tensor]

    def rows(
        self,
        ops: Backend,
        draws: Draws,
        history: History | None,
        remembered: Mapping[str, Tensor],
    ) -> Rows:
        """What the stage sees.

        Draws are of the whole batch; history and what is remembered of the pass's members.
        """
        return Rows(
            columns=self.columns,
            given=self.given,
            entries=self.entries,
            tables=self.tables,
            draws=draws.select(self.index),
            ops=ops,
            history=history,
            remembered=remembered,
        )

    def apply(self, logits: Tensor, rows: Rows) -> None:
        """Lead the members through the stage; logits [R, V] of the whole batch, in place."""
        part = logits[self.index]
        self.stage.apply(part, rows)
        if isinstance(self.index, Tensor):
            logits[self.index] = part


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that go through the stages together, on the device."""

    span: slice
    """Their places among the rows of the step."""
    passes: list[Pass]
    drawn: Index | None
    """Rows that are drawn; None: all are greedy."""
    greedy: Index | None
    seeds: Tensor
    choices: Tensor
    rows: Tensor
    """[R] int64: ids."""
    prompts: Tensor
    """[R] int64: lengths of the prompts."""
    prompt_lengths: tuple[int, ...]
    beams: tuple[int, ...]
    """Places in the batch of rows whose log-probabilities are those after their stages."""
    explained: Mapping[int, Row]
    """Rows that want to know what stages do, by their places in the batch."""

    @property
    def plain(self) -> bool:
        """Every row takes the likeliest token of the model itself, and asks for no more."""
        return not self.passes and self.drawn is None and not self.explained


def passes_of(chains: Sequence[Sequence[Stage]], device: torch.device) -> list[Pass]:
    """Merge the rows' chains; each row keeps its own order.

    A pass waits as long as another can run whose stage no row has yet to reach, so that rows that
    reach a stage at different places of their orders take it together.
    """
    done = [0] * len(chains)
    passes: list[Pass] = []
    due = Counter(type(stage) for chain in chains for stage in chain)
    while heads := {
        place: chain[at]
        for place, (chain, at) in enumerate(zip(chains, done, strict=True))
        if at < len(chain)
    }:
        ready = Counter(type(head) for head in heads.values())
        stage = min(ready, key=lambda kind: (due[kind] - ready[kind], kind.order))
        due[stage] -= ready[stage]
        members = {place: head for place, head in heads.items() if type(head) is stage}
        for place in members:
            done[place] += 1
        passes.append(_make_pass(stage, tuple(members), list(members.values()), device))
    return passes


def index_of(places: Sequence[int], device: torch.device) -> Index:
    """An index for ascending places: a slice, which copies nothing, if they are neighbours."""
    if places[-1] - places[0] + 1 == len(places):
        return slice(places[0], places[-1] + 1)
    return upload(np.array(places, np.int64), device)


def make_batch(span: slice, ids: Sequence[int], rows: list[Row], device: torch.device) -> Batch:
    """Put rows together; `span` says which of the step's rows they are."""
    return Batch(
        span=span,
        passes=passes_of([row.chain for row in rows], device),
        drawn=places_of([not row.greedy for row in rows], device),
        greedy=places_of([row.greedy for row in rows], device),
        seeds=upload(np.array([row.seed for row in rows], np.int64), device),
        choices=upload(np.array([row.choice for row in rows], np.int32), device),
        rows=upload(np.array(ids, np.int64), device),
        prompts=upload(np.array([row.prompt_length for row in rows], np.int64), device),
        prompt_lengths=tuple(row.prompt_length for row in rows),
        beams=tuple(place for place, row in enumerate(rows) if row.beam),
        explained={place: row for place, row in enumerate(rows) if row.explain is not None},
    )


def places_of(marks: list[bool], device: torch.device) -> Index | None:
    """An index of the marked places; None if there are none."""
    places = [place for place, mark in enumerate(marks) if mark]
    return index_of(places, device) if places else None


def _make_pass(
    stage: type[Stage], members: tuple[int, ...], heads: list[Stage], device: torch.device
) -> Pass:
    columns: dict[str, Tensor] = {}
    entries: dict[str, Entries] = {}
    numbers: dict[str, type[np.float32 | np.int64]] = dict.fromkeys(stage.computed, np.float32)
    given: set[str] = set()
    for field in fields_of(stage):
        values = [getattr(head, field.name) for head in heads]
        if field.lists_tokens:
            entries[field.name] = _entries(values, device)
            continue
        if not field.is_number:
            continue
        numbers[field.name] = np.float32 if field.type is float else np.int64
        if any(value != field.default for value in values):
            given.add(field.name)
    for name, dtype in numbers.items():
        values = [getattr(head, name) for head in heads]
        if name in stage.computed and any(values):
            given.add(name)
        columns[name] = upload(np.array(values, dtype), device)[:, None]
    tables = {name: upload(_array(table), device) for name, table in stage.tables(heads).items()}
    index = index_of(members, device)
    return Pass(stage, members, index, columns, frozenset(given), entries, tables)


def _array(table: object) -> np.ndarray:
    return np.asarray(table, np.int64 if isinstance(table, list) else None)


def _entries(values: list[Mapping[int, float] | tuple[int, ...]], device: torch.device) -> Entries:
    """Values are per row one mapping from token to number, or one tuple of tokens."""
    maps = [dict.fromkeys(each, 1.0) if isinstance(each, tuple) else each for each in values]
    rows = [row for row, each in enumerate(maps) for _ in each]
    tokens = [token for each in maps for token in each]
    numbers = [number for each in maps for number in each.values()]
    return Entries(
        row=upload(np.array(rows, np.int64), device),
        token=upload(np.array(tokens, np.int64), device),
        value=upload(np.array(numbers, np.float32), device),
    )
