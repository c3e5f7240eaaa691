"""A ban of n-grams that have occurred."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class NoRepeatNgram(Stage, frozen=True):
    """Bans tokens that would repeat a sequence of this many (arXiv 1705.04304); 0 is off.

    Prompt and output count. 1 bans every token that has occurred. Without effect where no token
    would be left.
    """

    order: ClassVar[int] = 500
    beams: ClassVar[bool] = True
    needs_history: ClassVar[bool] = True
    needs_repeats: ClassVar[bool] = True

    no_repeat_ngram_size: Annotated[int, Ge(0)] = 0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, size = rows.history, rows.columns["no_repeat_ngram_size"]
        assert history is not None
        found = history.repeats(size - 1)
        wanted = found.of(size)
        active = (found.length >= wanted - 1) & (wanted > 0) & (found.place >= 0)
        ban(logits, found.within(logits.shape[1]), active.view(-1))
