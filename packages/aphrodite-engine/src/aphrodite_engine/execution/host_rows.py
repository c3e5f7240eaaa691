"""Tokens and block tables where the device is the CPU."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aphrodite_engine.execution.limits import Limits
from aphrodite_engine.execution.shared_buffer import SharedBuffer
from aphrodite_engine.plan import BlockUpdate


class HostRows:
    """Implements state.RowMemory: kernels read what numpy writes."""

    def __init__(self, limits: Limits, groups: int) -> None:
        self.width = limits.width
        self._tokens = SharedBuffer((limits.rows, self.width), torch.int32)
        self.tables: tuple[NDArray[np.int32], ...] = tuple(
            np.zeros((limits.rows, limits.blocks), np.int32) for _ in range(groups)
        )
        """Per KV group [rows, blocks]."""
        self.table_changes = 0
        """How often an entry of `tables` was set."""

    @property
    def tokens(self) -> Tensor:
        return self._tokens.tensor

    def set_tokens(self, row: int, tokens: NDArray[Any]) -> None:
        self._tokens.host[row, : len(tokens)] = tokens

    def set_blocks(self, update: BlockUpdate) -> None:
        end = update.start + len(update.blocks)
        self.tables[update.group][update.row, update.start : end] = update.blocks
        self.table_changes += 1

    def publish(self) -> None:
        """It is the same memory."""

    def append(self, rows: list[int], positions: list[int], tokens: Tensor) -> None:
        """Put one token [R] int32 into each row."""
        places = [row * self.width + at for row, at in zip(rows, positions, strict=True)]
        self._tokens.put(places, tokens)
