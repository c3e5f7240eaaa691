"""Looks on while rows go through their stages, and notes how each stage changes them.

What is noted stays on the device until the step is read; the rows are left alone. Only for rows
that want it: the sampler makes no watch for others.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import log

import torch
from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_engine.sampling.explanation import Candidate, Explanation, Spread, StageEffect
from aphrodite_engine.sampling.logprobs import to_host
from aphrodite_engine.sampling.row import Row


@dataclass(frozen=True, slots=True)
class Seen:
    """What was noted of a row with S stages, on the device or on the host."""

    row: Row
    spreads: Tensor
    """[S + 1, 2] float64: candidates and entropy in bits, before each stage and at the end."""
    tokens: Tensor
    """[S + 1, K] int64: the likeliest of each stage, and of the end."""
    probabilities: Tensor
    """[S + 1, K, 2] float32: theirs, before and after."""

    def map(self, move: Callable[[Tensor], Tensor]) -> "Seen":
        """The same elsewhere."""
        return replace(
            self,
            spreads=move(self.spreads),
            tokens=move(self.tokens),
            probabilities=move(self.probabilities),
        )

    def read(self, token: int) -> Explanation:
        """As plain data, of a row that got a token; waits for the device."""
        spreads = [Spread(int(count), max(0.0, bits)) for count, bits in to_host(self.spreads)]
        tops = [
            [Candidate(one, *pair) for one, pair in zip(ids, pairs, strict=True) if any(pair)]
            for ids, pairs in zip(to_host(self.tokens), to_host(self.probabilities), strict=True)
        ]
        return Explanation(
            token=token,
            greedy=self.row.greedy,
            stages=[
                StageEffect(
                    stage=stage.name(),
                    fields={each.name: getattr(stage, each.name) for each in stage.wire_fields()},
                    before=spreads[place],
                    after=spreads[place + 1],
                    top=tops[place],
                )
                for place, stage in enumerate(self.row.chain)
            ],
            final=spreads[-1],
            top=[(one.token, one.after) for one in tops[-1]],
        )


class Watch:
    """Watches some rows of a batch.

    Args:
        rows: by their places in the batch.
        logits: [R, V] of the batch, before any stage.
        ops: of their device.
    """

    def __init__(self, rows: Mapping[int, Row], logits: Tensor, ops: Backend) -> None:
        self._ops = ops
        self._notes = {
            place: _Notes(row, ops, self._logs(logits, place)) for place, row in rows.items()
        }

    def see(self, members: Iterable[int], logits: Tensor) -> None:
        """A stage has changed the rows at some places."""
        for place in members:
            if place in self._notes:
                self._notes[place].add(self._logs(logits, place))

    def seen(self, shift: int) -> dict[int, Seen]:
        """All that was noted, by place; places count from `shift`."""
        return {place + shift: notes.seen() for place, notes in self._notes.items()}

    def _logs(self, logits: Tensor, place: int) -> Tensor:
        """Logarithms of a row's probabilities, [1, V] float32."""
        row = logits[place : place + 1].float()
        return row - self._ops.logsumexp(row)[:, None]


class _Notes:
    """Of one row."""

    def __init__(self, row: Row, ops: Backend, logs: Tensor) -> None:
        self._row = row
        self._ops = ops
        self._probabilities = logs.exp()
        self._spreads = [self._spread(logs)]
        self._tops: list[tuple[Tensor, Tensor]] = []

    def add(self, logs: Tensor) -> None:
        before, self._probabilities = self._probabilities, logs.exp()
        self._spreads.append(self._spread(logs))
        self._tops.append(self._top(before, self._probabilities))

    def seen(self) -> Seen:
        tops = [*self._tops, self._top(self._probabilities, self._probabilities)]
        return Seen(
            self._row,
            torch.cat(self._spreads),
            torch.cat([tokens for tokens, _ in tops]),
            torch.cat([pairs for _, pairs in tops]),
        )

    def _top(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [1, K] and their probabilities [1, K, 2]."""
        count = min(self._row.explain or 0, before.shape[1])
        tokens = before.maximum(after).topk(count).indices
        return tokens, torch.stack([before.gather(1, tokens), after.gather(1, tokens)], -1)

    def _spread(self, logs: Tensor) -> Tensor:
        """Candidates and entropy in bits, [1, 2] float64."""
        entropy, _, candidates = self._ops.uncertainty(logs)
        return torch.cat([candidates.double(), entropy / log(2)], -1)
