"""The shape of a step, by arithmetic on whole arrays; and what turns it into a model's input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.model_input import ModelInput
from aphrodite_engine.plan import RowWork

Numbers: TypeAlias = NDArray[np.int64]
Facts: TypeAlias = tuple[int, int, int, bool]
"""Of a row's work: row, start, count, samples."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step whose tensors are in place."""

    tokens: int
    requests: int
    outputs: int
    """Rows that sample."""
    max_query: int
    max_seq: int
    rows: Numbers
    """[requests] row of state of each request."""
    seq_lens: Numbers
    """[requests] first position + count."""
    query_starts: Numbers
    """[requests + 1] first token row."""
    sampling: Numbers
    """[outputs] index of the request."""

    @property
    def decodes(self) -> bool:
        """Every request computes one token, and samples the next."""
        return self.tokens == self.requests == self.outputs


class Inputs(Protocol):
    """The tensors of one step after the other."""

    @property
    def outputs(self) -> int:
        """Most logit rows of one call of the head."""
        ...

    @property
    def logit_index(self) -> Tensor:
        """Int64 [at least outputs]: the token rows whose logits are asked for come first."""
        ...

    def fill(self, work: Sequence[RowWork]) -> Step:
        """Put the tensors of a step in place."""
        ...

    def exact(self, step: Step) -> ModelInput:
        """The input of the step that was filled last."""
        ...

    def choose(self, token_rows: Numbers) -> None:
        """Ask for the logits of these token rows instead of those that sample."""
        ...

    def sampled_positions(self, step: Step) -> Tensor:
        """[outputs] int32 on the device: index of the token that each sampling row will get."""
        ...

    def write(self, step: Step, tokens: Tensor) -> None:
        """Put the sampled tokens [outputs] int32 behind their rows' tokens, on the device."""
        ...


def facts_of(work: Sequence[RowWork]) -> list[Facts]:
    """What the arithmetic needs."""
    return [(item.row, item.start, item.count, item.samples) for item in work]


def shape_of(facts: Sequence[Facts]) -> tuple[Step, Numbers]:
    """Any step; and the counts [requests]."""
    rows, starts, counts, samples = np.array(facts, np.int64).T
    query_starts = np.zeros(len(facts) + 1, np.int64)
    np.cumsum(counts, out=query_starts[1:])
    seq_lens = starts + counts
    sampling = samples.nonzero()[0]
    step = Step(
        tokens=int(query_starts[-1]),
        requests=len(facts),
        outputs=len(sampling),
        max_query=int(counts.max()),
        max_seq=int(seq_lens.max()),
        rows=rows,
        seq_lens=seq_lens,
        query_starts=query_starts,
        sampling=sampling,
    )
    return step, counts


def spread(step: Step, counts: Numbers) -> tuple[Numbers, Numbers]:
    """Per token: its row of state, its position."""
    firsts = step.seq_lens - counts - step.query_starts[:-1]
    return np.repeat(step.rows, counts), np.arange(step.tokens) + np.repeat(firsts, counts)
