"""The tensors of a step where the device is the CPU: numpy writes them where kernels read them.

They lie in buffers that live as long as the runner, so that a recorded program finds them where
they were.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from aphrodite_kernels.attention import AttentionMeta, KVCache
from aphrodite_kernels.backend import Backend
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.execution.host_rows import HostRows
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.shared_buffer import SharedBuffer
from aphrodite_engine.execution.step import Facts, Numbers, Step, facts_of, shape_of, spread
from aphrodite_engine.kv import KVGroup, group_of_layers
from aphrodite_engine.model_input import ModelInput
from aphrodite_engine.plan import RowWork


class HostInputs:
    """Implements step.Inputs."""

    def __init__(
        self,
        limits: Limits,
        groups: Sequence[KVGroup],
        caches: tuple[KVCache, ...],
        memory: HostRows,
        backend: Backend,
    ) -> None:
        self.rows = limits.rows
        self.outputs = limits.rows + 2
        self.capacity = max(min(limits.tokens, limits.rows * limits.positions), self.outputs + 1)
        """Token rows; not as many as rows or outputs: a recorder tells them by their number."""
        self._limits = limits
        self._caches = caches
        self._memory = memory
        self._select = backend.select
        self._history = memory.tokens.view(-1, 1)
        self._sources = SharedBuffer((self.capacity,), torch.int64)
        self._positions = SharedBuffer((self.capacity,), torch.int32)
        self._query_starts = SharedBuffer((self.rows + 1,), torch.int32)
        self._seq_lens = SharedBuffer((self.rows,), torch.int32)
        self._slots = [SharedBuffer((self.capacity,), torch.int64) for _ in groups]
        self._tables = [SharedBuffer((self.rows, limits.blocks), torch.int32) for _ in groups]
        self._logit_index = SharedBuffer((self.outputs,), torch.int64)
        self._group_of_layer = group_of_layers(groups)
        # The step in the buffers if all its rows decode, and the facts of the one that follows it.
        self._before: Step | None = None
        self._expected: list[Facts] = []
        self._tables_shown = 0

    def fill(self, work: Sequence[RowWork]) -> Step:
        """Put the tensors of a step into the buffers."""
        facts = facts_of(work)
        before, self._before = self._before, None
        if before is not None and facts == self._expected:
            step = self._advance(before, facts)
        else:
            step = self._lay_out(facts)
        self._tables_shown = self._memory.table_changes
        self._before = step if step.decodes else None
        self._expected = [(row, start + 1, 1, True) for row, start, _, _ in facts]
        return step

    def _advance(self, before: Step, facts: list[Facts]) -> Step:
        """The same rows, each with the token that it sampled: a layout's numbers plus one.

        While a step's weights stream through the caches an operation of numpy takes 10 to 40 us,
        and a layout has twenty.
        """
        same_blocks = self._tables_shown == self._memory.table_changes and all(
            start % self._limits.block_size for _, start, _, _ in facts
        )
        moving = [self._positions, self._seq_lens, self._sources]
        for buffer in moving + self._slots if same_blocks else moving:
            buffer.host[: before.requests] += 1
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
        step, counts = shape_of(facts)
        token_rows, positions = spread(step, counts)
        self._put(self._positions, positions)
        self._put(self._query_starts, step.query_starts)
        self._put(self._seq_lens, step.seq_lens)
        self._put(self._sources, token_rows * self._memory.width + positions)
        self._put(self._logit_index, step.query_starts[1:][step.sampling] - 1)
        self._fill_groups(step, token_rows, positions)
        return step

    def choose(self, token_rows: Numbers) -> None:
        """Ask for the logits of these token rows."""
        self._before = None
        self._put(self._logit_index, token_rows)

    def sampled_positions(self, step: Step) -> Tensor:
        """[outputs] int32: index of the token that each sampling row will get."""
        return torch.tensor(step.seq_lens[step.sampling], dtype=torch.int32)

    def write(self, step: Step, tokens: Tensor) -> None:
        """Put the sampled tokens [outputs] int32 behind their rows' tokens."""
        rows, positions = step.rows[step.sampling], step.seq_lens[step.sampling]
        self._memory.append(rows.tolist(), positions.tolist(), tokens)

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
        for table, slots, shown in zip(self._memory.tables, self._slots, self._tables, strict=True):
            shown.host[: step.requests, :width] = table[step.rows, :width]
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
    def _put(buffer: SharedBuffer, values: NDArray[Any]) -> None:
        buffer.host[: len(values)] = values
