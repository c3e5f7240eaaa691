"""How large a step can be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the batch, by which every buffer is sized."""

    rows: int
    """Requests in a step, and rows of state."""
    tokens: int
    """Tokens in a step."""
    positions: int
    """Longest request."""
    block_size: int
    """Positions per KV block."""

    @property
    def width(self) -> int:
        """Tokens of a row: one more than the longest request has, since a step that was launched
        before a stop was known writes it.
        """
        return self.positions + 1

    @property
    def blocks(self) -> int:
        """Entries of a row's block table."""
        return -(-self.width // self.block_size)
