"""From the work of a plan to the tensors of a step, by arithmetic on whole arrays.

The tensors lie in buffers that live as long as the runner, so that a recorded program finds them
where they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from aphrodite_kernels.attention import AttentionMeta, KVCache
from aphrodite_kernels.backend import Backend
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.execution.buffers import Buffer
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.state import BatchState
from aphrodite_engine.kv import KVGroup
from aphrodite_engine.model_input import ModelInput
from aphrodite_engine.plan import RowWork

Numbers: TypeAlias = NDArray[np.int64]
Facts: TypeAlias = tuple[int, int, int, bool]
"""Of a row's work: row, start, count, samples."""


@dataclass(frozen=True, slots=True)
class Step:
    """The shape of a step whose tensors are in the buffers."""

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


class StepInputs:
    """Buffers of a step's tensors, and what fills them."""

    def __init__(
        self,
        limits: Limits,
        groups: Sequence[KVGroup],
        caches: tuple[KVCache, ...],
        state: BatchState,
        backend: Backend,
    ) -> None:
        self.rows = limits.rows
        self.outputs = limits.rows + 2
        self.capacity = max(min(limits.tokens, limits.rows * limits.positions), self.outputs + 1)
        """Token rows; not as many as rows or outputs: a recorder tells them by their number."""
        self._limits = limits
        self._caches = caches
        self._state = state

        def buffer(*shape: int, dtype: torch.dtype = torch.int32) -> Buffer:
            return Buffer(shape, dtype, backend.device)

        self._select = backend.select
        self._history = state.tokens.view(-1, 1)
        self._sources = buffer(self.capacity, dtype=torch.int64)
        self._positions = buffer(self.capacity)
        self._query_starts = buffer(self.rows + 1)
        self._seq_lens = buffer(self.rows)
        self._slots = [buffer(self.capacity, dtype=torch.int64) for _ in groups]
        self._tables = [buffer(self.rows, limits.blocks) for _ in groups]
        self._logit_index = buffer(self.outputs, dtype=torch.int64)
        # The step in the buffers if all its rows decode, and the facts of the one that follows it.
        self._before: Step | None = None
        self._expected: list[Facts] = []
        self._tables_shown = 0
        self._group_of_layer = [
            index
            for _, index in sorted(
                (layer, index) for index, group in enumerate(groups) for layer in group.layers
            )
        ]

    def fill(self, work: Sequence[RowWork]) -> Step:
        """Put the tensors of a step into the buffers."""
        facts = [(item.row, item.start, item.count, item.samples) for item in work]
        before, self._before = self._before, None
        if before is not None and facts == self._expected:
            step = self._advance(before, facts)
        else:
            step = self._lay_out(facts)
        self._tables_shown = self._state.table_changes
        decodes = step.tokens == step.requests == step.outputs
        self._before = step if decodes else None
        self._expected = [(row, start + 1, 1, True) for row, start, _, _ in facts]
        return step

    def _advance(self, before: Step, facts: list[Facts]) -> Step:
        """The same rows, each with the token that it sampled: a layout's numbers plus one.

        While a step's weights stream through the caches an operation of numpy takes 10 to 40 us,
        and a layout has twenty.
        """
        same_blocks = self._tables_shown == self._state.table_changes and all(
            start % self._limits.block_size for _, start, _, _ in facts
        )
        moving = [self._positions, self._seq_lens, self._sources]
        for buffer in moving + self._slots if same_blocks else moving:
            buffer.host[: before.requests] += 1
            buffer.publish(before.requests)
        step = Step(
            tokens=before.tokens,
            requests=before.requests,
            outputs=before.outputs,
            max_query=1,
            max_seq=before.max_seq + 1,
            rows=before.rows,
            seq_lens=before.seq_lens + 1,
            query_starts=before.query_starts,
            sampling=before.sampling,
        )
        if not same_blocks:
            self._fill_groups(step, step.rows, before.seq_lens)
        return step

    def _lay_out(self, facts: list[Facts]) -> Step:
        """Any step."""
        rows, starts, counts, samples = np.array(facts, np.int64).T
        requests = len(facts)
        query_starts = np.zeros(requests + 1, np.int64)
        np.cumsum(counts, out=query_starts[1:])
        tokens = int(query_starts[-1])
        seq_lens = starts + counts
        sampling = samples.nonzero()[0]
        step = Step(
            tokens=tokens,
            requests=requests,
            outputs=len(sampling),
            max_query=int(counts.max()),
            max_seq=int(seq_lens.max()),
            rows=rows,
            seq_lens=seq_lens,
            query_starts=query_starts,
            sampling=sampling,
        )
        token_rows = np.repeat(rows, counts)
        positions = np.arange(tokens) + np.repeat(starts - query_starts[:-1], counts)
        self._put(self._positions, positions)
        self._put(self._query_starts, query_starts)
        self._put(self._seq_lens, seq_lens)
        self._put(self._sources, token_rows * self._state.width + positions)
        self._put(self._logit_index, query_starts[1:][sampling] - 1)
        self._fill_groups(step, token_rows, positions)
        return step

    def choose(self, token_rows: Numbers) -> None:
        """Ask for the logits of these token rows."""
        self._before = None
        self._put(self._logit_index, token_rows)

    @property
    def logit_index(self) -> Tensor:
        """[outputs] int64, the whole buffer."""
        return self._logit_index.tensor

    def exact(self, step: Step) -> ModelInput:
        """The step's own rows of the buffers."""
        return self._input(step.tokens, step.requests, step.max_query, step.max_seq)

    def whole(self) -> ModelInput:
        """All rows of the buffers, filled as a step of the largest size, for a recording."""
        self._before = None
        query_starts = np.arange(self.rows + 1) * self.capacity // self.rows
        self._put(self._query_starts, query_starts)
        self._put(self._seq_lens, np.diff(query_starts))
        return self._input(self.capacity, self.rows, self.capacity, self._limits.positions)

    def _fill_groups(self, step: Step, token_rows: Numbers, positions: Numbers) -> None:
        size = self._limits.block_size
        blocks, offsets = np.divmod(positions, size)
        width = -(-step.max_seq // size)
        for table, slots, shown in zip(self._state.tables, self._slots, self._tables, strict=True):
            shown.host[: step.requests, :width] = table[step.rows, :width]
            shown.publish(step.requests)
            self._put(slots, table[token_rows, blocks].astype(np.int64) * size + offsets)

    def _input(self, tokens: int, requests: int, max_query: int, max_seq: int) -> ModelInput:
        seq_lens = self._seq_lens.tensor[:requests]
        query_starts = self._query_starts.tensor[: requests + 1]
        groups = [
            AttentionMeta(
                block_tables=table.tensor[:requests],
                seq_lens=seq_lens,
                query_starts=query_starts,
                slots=slots.tensor[:tokens],
                max_query=max_query,
                max_seq=max_seq,
            )
            for table, slots in zip(self._tables, self._slots, strict=True)
        ]
        return ModelInput(
            tokens=self._select(self._history, self._sources.tensor[:tokens]).view(-1),
            positions=self._positions.tensor[:tokens],
            attention=tuple(groups[index] for index in self._group_of_layer),
            caches=self._caches,
        )

    @staticmethod
    def _put(buffer: Buffer, values: NDArray[Any]) -> None:
        buffer.host[: len(values)] = values
        buffer.publish(len(values))
