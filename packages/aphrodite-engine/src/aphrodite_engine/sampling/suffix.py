"""The end of a history. Knows no torch: it is given tensors."""

from typing import TYPE_CHECKING

from aphrodite_engine.sampling.rows import History

if TYPE_CHECKING:
    from torch import Tensor

_BEFORE = -1


def suffix(history: History, count: int) -> "Tensor":
    """The last tokens, oldest first, [n, count] int64; -1: before the first token."""
    places = history.lengths - count + history.lengths.new_ones(count).cumsum(0) - 1
    tokens = history.tokens.gather(1, places.clamp(0, history.tokens.shape[1] - 1))
    return tokens.masked_fill_(places < 0, _BEFORE).long()
