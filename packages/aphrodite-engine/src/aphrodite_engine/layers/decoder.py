"""A decoder, whatever its blocks are."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from aphrodite_engine.layers.embedding import Embedding
from aphrodite_engine.layers.linear import Linear
from aphrodite_engine.layers.norm import Norm
from aphrodite_engine.model_input import ModelInput


class Block(Protocol):
    """Attention and MLP of one layer."""

    def __call__(
        self,
        update: Tensor,
        residual: Tensor | None,
        input: ModelInput,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The stream [T, hidden] is update + residual; the sum is left to the norm that follows.

        residual: None before the first block. wanted: tokens [R] with which the stream goes on
        behind the attention; None: all.
        """
        ...


class Decoder:
    """Embedding, blocks, norm, head. Implements model.Model."""

    def __init__(
        self,
        embedding: Embedding,
        blocks: Sequence[Block],
        norm: Norm,
        head: Linear,
        softcap: float | None = None,
    ) -> None:
        self._embedding = embedding
        self._blocks = blocks
        self._norm = norm
        self._head = head
        self.softcap = softcap

    def forward(self, input: ModelInput) -> Tensor:
        """Hidden rows after the last norm: of all tokens, or of those that are wanted."""
        update, residual = self._embedding(input.tokens), None
        *blocks, last = self._blocks
        for block in blocks:
            update, residual = block(update, residual, input)
        update, residual = last(update, residual, input, input.wanted)
        return self._norm.add(update, residual)[0]

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, hidden] -> [R, V], not yet capped."""
        return self._head(hidden)
