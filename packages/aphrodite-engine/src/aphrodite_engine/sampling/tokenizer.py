"""What stages ask of text: `text.tokenizer.Tokenizer` is one, and knows nothing of stages."""

from typing import Protocol


class Tokenizer(Protocol):
    """Which tokens have a meaning to stages."""

    @property
    def end_ids(self) -> frozenset[int]:
        """All tokens that end a generation."""
        ...

    @property
    def line_breaks(self) -> frozenset[int]:
        """Tokens that are line breaks and nothing else."""
        ...

    def encode_inside(self, text: str) -> list[int]:
        """Tokens of a text that others precede."""
        ...

    def tokens_containing(self, text: str) -> list[int]:
        """Tokens that hold a text; ascending."""
        ...

    def tokens_ending(self, text: str) -> list[int]:
        """Tokens that end in a text; ascending."""
        ...
