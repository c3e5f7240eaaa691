"""Banned texts, found as the text arrives, and what is to be banned for them.

One guard for each completion. It knows characters and tokens, and nothing of how text is told.
Letters of either case are compared one by one, so folding never changes a length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aphrodite_engine.sampling.stages.banned_strings import BannedStrings
from aphrodite_engine.text.stop import StopStrings


@dataclass(frozen=True, slots=True)
class Rewind:
    """What the engine must do with a completion."""

    kept: int
    """Tokens of the output that stay."""
    banned: list[int]
    """What cannot come behind them: all that was banned there so far."""


@dataclass(frozen=True, slots=True)
class Phrases:
    """Compiled banned texts, shared by the completions of a request."""

    strings: StopStrings
    folded: bool
    longest: int
    """Characters of the longest."""

    @classmethod
    def of(cls, bans: BannedStrings | None) -> "Phrases | None":
        """RequestError if all together are too long."""
        if bans is None:
            return None
        folded = not bans.banned_strings_case_sensitive
        texts = [_fold(text) if folded else text for text in bans.banned_strings if text]
        return cls(
            StopStrings(texts, "banned_strings", "banned string"), folded, max(map(len, texts))
        )


class PhraseGuard:
    """Where one text stands, and what was banned in it."""

    def __init__(self, phrases: Phrases) -> None:
        self._phrases = phrases
        self._banned: dict[int, list[int]] = {}
        self.node = 0
        """Of the automaton; to be set back with the text."""

    def feed(self, text: str) -> Iterator[tuple[int, int]]:
        """Read on: (characters of `text` read, length) of each banned text that ends there."""
        strings = self._phrases.strings
        for place, character in enumerate(_fold(text) if self._phrases.folded else text):
            self.node = strings.advance(self.node, character)
            for length in strings.lengths(self.node):
                yield place + 1, length

    @property
    def longest(self) -> int:
        """Characters of the longest banned text."""
        return self._phrases.longest

    @property
    def held(self) -> int:
        """Characters at the end of the text that may become part of a banned one."""
        return self._phrases.strings.depth(self.node)

    def ban(self, place: int, token: int) -> Rewind | None:
        """Ban a token of the output at its place; None: it is, and came nevertheless.

        What was banned behind that place was banned for a text that is no more.
        """
        banned = self._banned.get(place, [])
        if token in banned:
            return None
        self._banned = {at: tokens for at, tokens in self._banned.items() if at < place}
        self._banned[place] = [*banned, token]
        return Rewind(place, self._banned[place])


def _fold(text: Sequence[str]) -> str:
    return "".join(map(_fold_one, text))


def _fold_one(character: str) -> str:
    folded = character.casefold()
    return folded if len(folded) == 1 else character
