"""What the device knows of every row between steps: tokens, block tables, who sits there.

It changes by the deltas of a plan alone. A row whose delta makes no sense is broken until it is
released: it answers with an error, and the others go on.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.execution.buffers import Buffer
from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.plan import BlockUpdate, Plan, RowStart


class BatchState:
    """Rows of the batch."""

    def __init__(self, limits: Limits, groups: int, vocab_size: int, device: torch.device) -> None:
        self.limits = limits
        self.width = limits.positions + 1
        """One more than the longest request: a step launched before a stop was known writes it."""
        self._tokens = Buffer((limits.rows, self.width), torch.int32, device)
        self.tokens: Tensor = self._tokens.tensor
        """[rows, width] int32: every token known, on the device."""
        self.tables: tuple[NDArray[np.int32], ...] = tuple(
            np.zeros((limits.rows, limits.blocks), np.int32) for _ in range(groups)
        )
        """Per KV group [rows, blocks]."""
        self.started: list[RowStart | None] = [None] * limits.rows
        """Who sits in each row."""
        self.broken: dict[int, str] = {}
        """Rows that cannot be computed, and why."""
        self.table_changes = 0
        """How often an entry of `tables` was set."""
        self._vocab_size = vocab_size

    def apply(self, plan: Plan) -> None:
        """Take the deltas of a plan: releases, starts, blocks."""
        for row in plan.released:
            self.started[row] = None
            self.broken.pop(row, None)
        for start in plan.started:
            self._start(start)
        for update in plan.blocks:
            self._set_blocks(update)

    def write(self, rows: list[int], positions: list[int], tokens: Tensor) -> None:
        """Put one token [R] int32 into each row, on the device."""
        places = [row * self.width + at for row, at in zip(rows, positions, strict=True)]
        self._tokens.put(places, tokens)

    def _start(self, start: RowStart) -> None:
        self.broken.pop(start.row, None)
        self.started[start.row] = start
        tokens = np.array(start.tokens, np.int64)
        if len(tokens) > self.width:
            self.broken[start.row] = f"{len(tokens)} tokens do not fit into a row of {self.width}"
        elif len(tokens) and not (tokens.min() >= 0 and tokens.max() < self._vocab_size):
            self.broken[start.row] = f"a token id is outside the vocabulary of {self._vocab_size}"
        else:
            known = torch.tensor(tokens, dtype=torch.int32)
            self.tokens[start.row, : len(known)].copy_(known)

    def _set_blocks(self, update: BlockUpdate) -> None:
        end = update.start + len(update.blocks)
        if end > self.limits.blocks:
            self.broken[update.row] = (
                f"{end} blocks do not fit into a table of {self.limits.blocks}"
            )
            return
        self.tables[update.group][update.row, update.start : end] = update.blocks
        self.table_changes += 1
