"""How the rows of a batch go through their stages together.

Each row has a chain of stages, in its own order. Rows that stand before the same stage take it in
one pass; a batch is the list of passes, with every parameter already on the device. It lasts as
long as the same rows are sampled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from aphrodite_engine.sampling.fields import fields_of
from aphrodite_engine.sampling.rows import Entries
from aphrodite_engine.sampling.stage import Stage

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
    entries: Mapping[str, Entries]


def passes_of(chains: Sequence[Sequence[Stage]], device: torch.device) -> list[Pass]:
    """Merge the rows' chains; each row keeps its own order."""
    done = [0] * len(chains)
    passes: list[Pass] = []
    while heads := {
        place: chain[at]
        for place, (chain, at) in enumerate(zip(chains, done, strict=True))
        if at < len(chain)
    }:
        stage = min((type(head) for head in heads.values()), key=lambda kind: kind.order)
        members = {place: head for place, head in heads.items() if type(head) is stage}
        for place in members:
            done[place] += 1
        passes.append(_make_pass(stage, tuple(members), list(members.values()), device))
    return passes


def index_of(places: Sequence[int], device: torch.device) -> Index:
    """An index for ascending places: a slice, which copies nothing, if they are neighbours."""
    if places[-1] - places[0] + 1 == len(places):
        return slice(places[0], places[-1] + 1)
    return torch.tensor(places, device=device)


def _make_pass(
    stage: type[Stage], members: tuple[int, ...], heads: list[Stage], device: torch.device
) -> Pass:
    columns: dict[str, Tensor] = {}
    entries: dict[str, Entries] = {}
    for field in fields_of(stage):
        values = [getattr(head, field.name) for head in heads]
        if field.lists_tokens:
            entries[field.name] = _entries(values, device)
        else:
            dtype = torch.float32 if field.type is float else torch.int64
            columns[field.name] = torch.tensor(values, dtype=dtype, device=device)[:, None]
    return Pass(stage, members, index_of(members, device), columns, entries)


def _entries(values: list[Mapping[int, float] | tuple[int, ...]], device: torch.device) -> Entries:
    """Values are per row one mapping from token to number, or one tuple of tokens."""
    maps = [dict.fromkeys(each, 1.0) if isinstance(each, tuple) else each for each in values]
    rows = [row for row, each in enumerate(maps) for _ in each]
    tokens = [token for each in maps for token in each]
    numbers = [number for each in maps for number in each.values()]
    return Entries(
        row=torch.tensor(rows, dtype=torch.int64, device=device),
        token=torch.tensor(tokens, dtype=torch.int64, device=device),
        value=torch.tensor(numbers, dtype=torch.float32, device=device),
    )
