"""Stop strings, found as the text arrives.

An Aho-Corasick automaton: any number of strings of any length, each character of the text costs
constant time. The match that is complete first wins; of several complete at the same character,
the longest. Text that may yet turn out to be part of a stop string is held back.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aphrodite_engine.errors import RequestError

MOST_CHARACTERS: Final = 200_000
"""Of all stop strings of a request; each takes a node, about 300 bytes."""


@dataclass(slots=True)
class _Node:
    depth: int
    fallback: int = 0
    """Node of the longest proper suffix that starts a stop string."""
    found: str | None = None
    """Longest stop string that ends here."""


class StopStrings:
    """Compiled stop strings; immutable, shared by the completions of a request."""

    def __init__(
        self, strings: Sequence[str], field: str = "stop", called: str = "stop string"
    ) -> None:
        """RequestError if one is empty, or if all together are too long.

        It blames `field`, and says what a string of it is called.
        """
        total = sum(map(len, strings))
        if total > MOST_CHARACTERS:
            raise RequestError(
                f"the {called}s have {total} characters; send at most {MOST_CHARACTERS}",
                field,
            )
        self._nodes = [_Node(depth=0)]
        self._edges: list[dict[str, int]] = [{}]
        for string in strings:
            if not string:
                raise RequestError(f"a {called} is empty; leave it out", field)
            self._insert(string)
        self._link()

    def _insert(self, string: str) -> None:
        node = 0
        for character in string:
            if character not in self._edges[node]:
                self._edges[node][character] = len(self._nodes)
                self._nodes.append(_Node(depth=self._nodes[node].depth + 1))
                self._edges.append({})
            node = self._edges[node][character]
        self._nodes[node].found = string

    def _link(self) -> None:
        queue = deque(self._edges[0].values())
        while queue:
            parent = queue.popleft()
            for character, child in self._edges[parent].items():
                fallback = self.advance(self._nodes[parent].fallback, character)
                self._nodes[child].fallback = fallback
                if self._nodes[child].found is None:
                    self._nodes[child].found = self._nodes[fallback].found
                queue.append(child)

    @property
    def empty(self) -> bool:
        """There are none."""
        return len(self._nodes) == 1

    def advance(self, node: int, character: str) -> int:
        """The node after one more character."""
        while node and character not in self._edges[node]:
            node = self._nodes[node].fallback
        return self._edges[node].get(character, 0)

    def depth(self, node: int) -> int:
        """Characters of the longest suffix that starts a stop string."""
        return self._nodes[node].depth

    def found(self, node: int) -> str | None:
        """The longest stop string that ends at this node."""
        return self._nodes[node].found

    def lengths(self, node: int) -> Iterator[int]:
        """Of all strings that end at this node, the longest first."""
        while (found := self._nodes[node].found) is not None:
            while self._nodes[node].depth > len(found):
                node = self._nodes[node].fallback
            yield len(found)
            node = self._nodes[node].fallback


class StopSearch:
    """Where one text stands."""

    def __init__(self, stops: StopStrings) -> None:
        self._stops = stops
        self.node = 0
        """Of the automaton; to be set back with the text."""

    def feed(self, text: str) -> tuple[int, str] | None:
        """Read on: (characters of `text` read, stop string that ended there), or None."""
        if self._stops.empty:
            return None
        for place, character in enumerate(text):
            self.node = self._stops.advance(self.node, character)
            found = self._stops.found(self.node)
            if found is not None:
                return place + 1, found
        return None

    @property
    def held(self) -> int:
        """Characters at the end of the text that may become part of a stop string."""
        return self._stops.depth(self.node)
