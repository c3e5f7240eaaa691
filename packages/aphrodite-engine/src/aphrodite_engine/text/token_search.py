"""Tokens by parts of their bytes."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class TokenSearch:
    """Finds tokens of a vocabulary; immutable."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._all = b"".join(pieces)
        self._ends = list(accumulate(map(len, pieces)))

    def containing(self, text: bytes) -> list[int]:
        """Tokens that hold a text, which is not empty; ascending."""
        found: list[int] = []
        at = self._all.find(text)
        while at >= 0:
            token = bisect_right(self._ends, at)
            end = self._ends[token]
            if at + len(text) <= end:
                found.append(token)
                at = end - 1  # on to the next token
            at = self._all.find(text, at + 1)
        return found

    def ending(self, text: bytes) -> list[int]:
        """Tokens that end in a text; ascending."""
        return [token for token, piece in enumerate(self._pieces) if piece.endswith(text)]
