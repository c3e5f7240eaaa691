"""Where the last tokens of each row have stood before, kept from token to token.

The number that belongs to a place says how many tokens before it are the last tokens of all. When a
token t is appended, each place's number is that of the place before, plus one, if the token before
it is t, and 0 otherwise. Numbers are filed by their distance from the end, so they stay where they
are: appending is one pass over a row, of two operations on 4 bytes per token of the history and
without a limit to what is counted. A row that starts is worked out on the host, in time linear in
its tokens. Nothing outlives the row's stay, and nothing depends on the order of events but the
tokens themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aphrodite_engine.upload import staged, upload


class Recurrence:
    """The numbers of rows that were started, by row id.

    Memory, as much as the matrix of tokens has, is taken when rows are first followed; planning
    counts it (`loading/resolve.py`).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._numbers: Tensor | None = None  # [rows, width] int32; distance d: column width - d
        self._fresh: dict[int, Sequence[int]] = {}
        self._counted: dict[int, int] = {}

    def start(self, row: int, tokens: Sequence[int]) -> None:
        """A row begins anew with these tokens."""
        self._fresh[row] = tokens
        self._counted[row] = len(tokens)

    def release(self, row: int) -> None:
        """Forget a row, if it was started."""
        self._fresh.pop(row, None)
        self._counted.pop(row, None)

    def follow(
        self,
        rows: Sequence[int],
        lengths: Sequence[int],
        ids: Tensor,
        shape: tuple[int, ...],
        ends: Tensor,
    ) -> Tensor:
        """Numbers [n, L] int32 of rows that have grown by a token, or by none, since the last time.

        To be read, not written. Column L - d is that of the place d tokens before the next one.

        Args:
            rows: n different ids.
            lengths: how many tokens each has: as when it started, or as before, or one more.
            ids: the rows, [n] int64 on the device.
            shape: of the matrix of tokens, the same each time.
            ends: [n, L] int32: their last tokens, the last in column L - 1; -1: before the first.

        Raises:
            ValueError: a row has grown otherwise.
        """
        numbers = self._ready(rows, shape)
        grown = [length - self._counted[row] for row, length in zip(rows, lengths, strict=True)]
        if not {0, 1}.issuperset(grown):
            raise ValueError(
                f"rows grow by one token between samplings, found {grown} since rows {list(rows)} "
                "were started or last sampled"
            )
        view = numbers[:, shape[1] - ends.shape[1] :]
        index = slice(rows[0], rows[0] + len(rows))  # copies nothing
        if list(rows) != list(range(index.start, index.stop)):
            index = ids
        part = view[index]
        if any(grown):
            self._append(part, ends, grown)
            if isinstance(index, Tensor):
                view[index] = part
            self._counted.update(zip(rows, lengths, strict=True))
        return part

    def _append(self, part: Tensor, ends: Tensor, grown: Sequence[int]) -> None:
        """Count the last tokens of rows, in place."""
        number, same = part[:, 1:], ends[:, :-1] == ends[:, -1:]
        if all(grown):
            number.add_(1).mul_(same)
        else:
            grew = upload(np.array(grown, np.int32), self._device)[:, None]
            number.add_(grew).mul_(same.logical_or_(grew == 0))

    def _ready(self, rows: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """All numbers, those of rows that have just started as well."""
        if self._numbers is None:
            self._numbers = torch.zeros(shape, dtype=torch.int32, device=self._device)
        numbers = self._numbers
        for row in self._fresh.keys() & set(rows):
            tokens = self._fresh.pop(row)
            place = numbers[row].zero_()[shape[1] - len(tokens) :]
            place.copy_(staged(_counted(tokens), self._device), non_blocking=True)
        return numbers


def _counted(tokens: Sequence[int]) -> np.ndarray:
    """The numbers of all places of a text, int32, in time linear in its length.

    The text is read backwards; the stretch that reached furthest says of every place inside it what
    the place as far from the end says, so no token is compared again that was found equal.
    """
    back = tokens[::-1]
    count = len(back)
    numbers = [0] * (count + 1)  # by distance
    begin = end = at = 0
    while True:
        try:
            at = back.index(back[0], at + 1)
        except (ValueError, IndexError):  # no further place that follows the last token
            break
        length = min(end - at, numbers[at - begin]) if at < end else 0
        if at + length >= end:
            while at + length < count and back[at + length] == back[length]:
                length += 1
            begin, end = at, at + length
        numbers[at] = length
    return np.array(numbers[:0:-1], np.int32)
