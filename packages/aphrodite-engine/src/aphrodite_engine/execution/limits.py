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
    def blocks(self) -> int:
        """Entries of a row's block table."""
        return -(-(self.positions + 1) // self.block_size)
