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
