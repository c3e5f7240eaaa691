"""The tensors of a step on a device of its own.

The host sends one small array of numbers per step; the device looks up the rest. A step in which
every row decodes lies at fixed places, padded to one of a few sizes by rows that nobody has, so
that a captured program finds it there. What a row computes does not depend on the padding.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch
from aphrodite_kernels.attention import AttentionMeta, KVCache
from aphrodite_kernels.backend import Backend
from torch import Tensor

from aphrodite_engine.execution.device_rows import DeviceRows
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.step import Numbers, Step, facts_of, shape_of, spread
from aphrodite_engine.kv import KVGroup, group_of_layers
from aphrodite_engine.model_input import ModelInput
from aphrodite_engine.plan import RowWork
from aphrodite_engine.upload import staged, upload


def sizes_up_to(rows: int) -> tuple[int, ...]:
    """Numbers of requests that a captured step is made for; the last is all of them."""
    sizes = [1, 2, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, rows, 32)]
    return (*(size for size in sizes if size < rows), rows)


class DeviceInputs:
    """Implements step.Inputs."""

    def __init__(
        self,
        limits: Limits,
        groups: Sequence[KVGroup],
        caches: tuple[KVCache, ...],
        memory: DeviceRows,
        backend: Backend,
    ) -> None:
        self.sizes = sizes_up_to(limits.rows)
        self.outputs = limits.rows
        self._limits = limits
        self._caches = caches
        self._memory = memory
        self._locate = backend.locate
        self._group_of_layer = group_of_layers(groups)
        device = memory.device
        # Of a decoding step of n rows, one behind the other, n each: row, position, place of the
        # next token in the matrix of tokens, position of the next token.
        self._decoding = torch.zeros(4 * limits.rows, dtype=torch.int32, device=device)
        self._decoding_parts = {
            size: torch.split(self._decoding[: 4 * size], size) for size in self.sizes
        }
        self._every = torch.arange(limits.rows + 1, dtype=torch.int32, device=device)
        self._in_order = self._every.long()
        self._mixed: tuple[Tensor, ...] = ()
        self._chosen = self._in_order

    def fill(self, work: Sequence[RowWork]) -> Step:
        """Send the numbers of a step."""
        step, counts = shape_of(facts_of(work))
        if step.decodes:
            self._decoding_step(step.rows, step.seq_lens)
        else:
            self._mixed_step(step, counts)
        return step

    def padded(self, requests: int) -> int:
        """The size at which a decoding step of so many requests lies."""
        return self.sizes[bisect_left(self.sizes, requests)]

    def _decoding_step(self, rows: Numbers, seq_lens: Numbers) -> None:
        size, count = self.padded(len(rows)), len(rows)
        numbers = np.zeros((4, size), np.int32)
        numbers[0] = self._memory.null_row
        numbers[0, :count] = rows
        numbers[1, :count] = seq_lens - 1
        numbers[3] = numbers[1] + 1
        numbers[2] = numbers[0] * self._memory.width + numbers[3]
        place = self._decoding[: 4 * size]
        place.copy_(staged(numbers.reshape(-1), self._memory.device), non_blocking=True)
        self._chosen = self._in_order

    def _mixed_step(self, step: Step, counts: Numbers) -> None:
        token_rows, positions = spread(step, counts)
        rows, ends = step.rows[step.sampling], step.seq_lens[step.sampling]
        parts = (
            step.rows,
            step.seq_lens,
            step.query_starts,
            token_rows,
            positions,
            rows * self._memory.width + ends,
            ends,
            step.query_starts[1:][step.sampling] - 1,
        )
        numbers = upload(np.concatenate(parts).astype(np.int32), self._memory.device)
        self._mixed = torch.split(numbers, [len(part) for part in parts])
        self._chosen = self._mixed[-1].long()

    def choose(self, token_rows: Numbers) -> None:
        """Ask for the logits of these token rows."""
        self._chosen = upload(token_rows, self._memory.device)

    @property
    def logit_index(self) -> Tensor:
        """[at least outputs] int64."""
        return self._chosen

    def sampled_positions(self, step: Step) -> Tensor:
        """[outputs] int32: index of the token that each sampling row will get."""
        return self._parts(step.requests)[3][: step.outputs] if step.decodes else self._mixed[6]

    def write(self, step: Step, tokens: Tensor) -> None:
        """Put the sampled tokens [outputs] int32 behind their rows' tokens."""
        if step.decodes:
            self.write_decoded(step.requests, tokens)
        else:
            self._write_at(self._mixed[5], tokens)

    def write_decoded(self, rows: int, tokens: Tensor) -> None:
        """The same for the first `rows` of a decoding step; a capture writes padding, too."""
        self._write_at(self._parts(rows)[2][:rows], tokens)

    def _write_at(self, places: Tensor, tokens: Tensor) -> None:
        self._memory.tokens.view(-1).index_copy_(0, places.long(), tokens)

    def exact(self, step: Step) -> ModelInput:
        """The input of the step that was filled last, without padding."""
        if step.decodes:
            parts = [part[: step.requests] for part in self._parts(step.requests)]
            return self._decoding_input(parts, step.max_seq)
        rows, seq_lens, query_starts, token_rows, positions = self._mixed[:5]
        return self._input(
            rows, token_rows, positions, (seq_lens, query_starts), (step.max_query, step.max_seq)
        )

    def decoding(self, size: int) -> ModelInput:
        """A decoding step of `size` rows wherever in their contexts they stand, for a capture."""
        return self._decoding_input(self._parts(size), self._limits.positions)

    def nobody(self, size: int) -> None:
        """Fill a decoding step of `size` null rows: it may run at any time."""
        self._decoding_step(np.full(size, self._memory.null_row), np.ones(size, np.int64))

    def _parts(self, requests: int) -> tuple[Tensor, ...]:
        return self._decoding_parts[self.padded(requests)]

    def _decoding_input(self, parts: Sequence[Tensor], max_seq: int) -> ModelInput:
        rows, positions, _, lengths = parts
        query_starts = self._every[: len(rows) + 1]
        return self._input(rows, rows, positions, (lengths, query_starts), (1, max_seq))

    def _input(
        self,
        rows: Tensor,
        owners: Tensor,
        positions: Tensor,
        lengths: tuple[Tensor, Tensor],
        most: tuple[int, int],
    ) -> ModelInput:
        """Look up what follows from rows and positions, on the device."""
        memory, size = self._memory, self._limits.block_size
        found = self._locate(rows, owners, positions, memory.tokens, memory.tables, size)
        metas = [
            AttentionMeta(
                block_tables=table,
                seq_lens=lengths[0],
                query_starts=lengths[1],
                slots=slots,
                max_query=most[0],
                max_seq=most[1],
            )
            for table, slots in zip(found.tables.unbind(), found.slots.unbind(), strict=True)
        ]
        return ModelInput(
            tokens=found.tokens,
            positions=positions,
            attention=tuple(metas[group] for group in self._group_of_layer),
            caches=self._caches,
        )
