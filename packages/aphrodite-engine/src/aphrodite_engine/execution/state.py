"""What is known of every row between steps: who sits there, its tokens, its block tables.

It changes by the deltas of a plan alone. A row whose delta makes no sense is broken until it is
released: it answers with an error, and the others go on.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.plan import BlockUpdate, Plan, RowStart


class RowMemory(Protocol):
    """Where the tokens and block tables of the rows lie: host_rows.py, device_rows.py."""

    @property
    def tokens(self) -> Tensor:
        """[rows, width] int32: every token known, on the device."""
        ...

    def set_tokens(self, row: int, tokens: NDArray[Any]) -> None:
        """A row's tokens, from its first on."""
        ...

    def set_blocks(self, update: BlockUpdate) -> None:
        """Entries of a row's block table."""
        ...

    def publish(self) -> None:
        """Let the steps from here on see what was set."""
        ...


class BatchState:
    """Rows of the batch."""

    def __init__(self, limits: Limits, vocab_size: int, memory: RowMemory) -> None:
        self.limits = limits
        self.memory = memory
        self.started: list[RowStart | None] = [None] * limits.rows
        """Who sits in each row."""
        self.broken: dict[int, str] = {}
        """Rows that cannot be computed, and why."""
        self._vocab_size = vocab_size

    @property
    def tokens(self) -> Tensor:
        """[rows, width] int32: every token known, on the device."""
        return self.memory.tokens

    def apply(self, plan: Plan) -> None:
        """Take the deltas of a plan: releases, starts, blocks."""
        for row in plan.released:
            self.started[row] = None
            self.broken.pop(row, None)
        for start in plan.started:
            self._start(start)
        for update in plan.blocks:
            self._set_blocks(update)
        self.memory.publish()

    def _start(self, start: RowStart) -> None:
        self.broken.pop(start.row, None)
        self.started[start.row] = start
        tokens = np.array(start.tokens, np.int64)
        width = self.limits.width
        if len(tokens) > width:
            self.broken[start.row] = f"{len(tokens)} tokens do not fit into a row of {width}"
        elif len(tokens) and not (tokens.min() >= 0 and tokens.max() < self._vocab_size):
            self.broken[start.row] = f"a token id is outside the vocabulary of {self._vocab_size}"
        else:
            self.memory.set_tokens(start.row, tokens.astype(np.int32))

    def _set_blocks(self, update: BlockUpdate) -> None:
        end = update.start + len(update.blocks)
        if end > self.limits.blocks:
            self.broken[update.row] = (
                f"{end} blocks do not fit into a table of {self.limits.blocks}"
            )
        else:
            self.memory.set_blocks(update)
