"""Tokens and block tables on a device of its own; the host sends what changes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.plan import BlockUpdate
from aphrodite_engine.upload import staged, upload


class DeviceRows:
    """Implements state.RowMemory.

    One row more than requests can take, the null row, stands where a captured step has room for
    more requests than there are. Its table is that of the null block.
    """

    def __init__(self, limits: Limits, groups: int, device: torch.device) -> None:
        self.device = device
        self.width = limits.width
        self.null_row = limits.rows
        self.tokens: Tensor = torch.zeros(
            limits.rows + 1, self.width, dtype=torch.int32, device=device
        )
        self.tables: Tensor = torch.zeros(
            groups, limits.rows + 1, limits.blocks, dtype=torch.int32, device=device
        )
        """[groups, rows + 1, blocks]."""
        self._changes: dict[int, int] = {}

    def set_tokens(self, row: int, tokens: NDArray[Any]) -> None:
        place = self.tokens[row, : len(tokens)]
        place.copy_(staged(tokens, self.device), non_blocking=True)

    def set_blocks(self, update: BlockUpdate) -> None:
        _, rows, blocks = self.tables.shape
        first = (update.group * rows + update.row) * blocks + update.start
        self._changes.update(enumerate(update.blocks, first))

    def publish(self) -> None:
        """Send the changed entries, all at once."""
        if not self._changes:
            return
        pairs = np.array([list(self._changes), list(self._changes.values())], np.int64)
        self._changes.clear()
        places, blocks = upload(pairs, self.device)
        self.tables.view(-1).index_copy_(0, places, blocks.int())
