"""Penalties for repetition."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

Penalty = Annotated[float, Ge(-2), Le(2)]


class Penalties(Stage, frozen=True):
    """Makes tokens that have occurred less likely, or more, with values on the other side."""

    order: ClassVar[int] = 400
    needs_history: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"repetition_penalty": ("rep_pen",)}

    repetition_penalty: Annotated[float, Gt(0)] = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off."""
    presence_penalty: Penalty = 0.0
    """Subtracted from the logits of tokens in the output; 0 is off."""
    frequency_penalty: Penalty = 0.0
    """Subtracted from a token's logit for each time it stands in the output; 0 is off."""

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, columns = rows.history, rows.columns
        assert history is not None
        # A token that recurs is gathered, and then written, with the same value each time.
        if "repetition_penalty" in rows.given:
            old = logits.gather(1, history.seen)
            repetition = columns["repetition_penalty"]
            logits.scatter_(1, history.seen, (old / repetition).where(old > 0, old * repetition))
        if rows.given.isdisjoint(("presence_penalty", "frequency_penalty")):
            return
        output = history.output()
        presence = columns["presence_penalty"] * output.counts[:, :1]
        logits.scatter_(1, output.tokens, logits.gather(1, output.tokens) - presence)
        frequency = columns["frequency_penalty"] * output.counts
        logits.scatter_add_(1, output.tokens, -frequency)
