"""Where the end of a history has stood before. Knows no torch: it is given tensors."""

from typing import TYPE_CHECKING, Final

from aphrodite_engine.sampling.rows import History

if TYPE_CHECKING:
    from torch import Tensor

LONGEST: Final = 255
"""Tokens that can be compared: what a byte can count."""
_AT_ONCE = 1 << 25
"""Comparisons that are in memory together, of a byte each; on a CPU, what its caches hold."""
_AT_ONCE_ON_CPU = 1 << 21
_BEFORE = -1
_LONG_BEFORE = -2


def suffix(history: History, count: int) -> "Tensor":
    """The last tokens, oldest first, [n, count] int64; -1: before the first token."""
    places = history.lengths - count + _numbers(history.lengths, count) - 1
    tokens = history.seen.gather(1, places.clamp(0, history.seen.shape[1] - 1))
    return tokens.masked_fill_(places < 0, _BEFORE)


def recurring(history: History, count: int) -> "Tensor":
    """[n, L] int64: how many tokens before each place are the last tokens of all, at most `count`.

    0 at and beyond the end. Every place is compared with `count` tokens, O(n · L · count) bytes
    of work in a few passes.
    """
    seen = history.seen
    n, length = seen.shape
    tokens = seen.new_full((n, length - 1 + count), _LONG_BEFORE).int()
    tokens[:, count:] = seen[:, :-1]
    before = tokens.unfold(1, length, 1)  # [n, count, L]: those before each place, oldest first
    end = suffix(history, count).int()[:, :, None]
    rank = _numbers(seen, count).byte()[:, None]  # of a token, counted from the oldest
    step = max(1, (_AT_ONCE_ON_CPU if seen.is_cpu else _AT_ONCE) // (n * count))
    equal = seen.new_empty((n, length))
    for at in range(0, length, step):
        part = slice(at, at + step)
        last_difference = ((before[:, :, part] != end) * rank).amax(1)
        equal[:, part] = count - last_difference.long()
    return equal.masked_fill_(history.places >= history.lengths, 0)


def _numbers(like: "Tensor", count: int) -> "Tensor":
    """1 … count."""
    return like.new_ones(count).cumsum(0)
