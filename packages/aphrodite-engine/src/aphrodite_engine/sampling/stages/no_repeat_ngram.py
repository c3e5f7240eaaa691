"""A ban of n-grams that have occurred."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from annotated_types import Ge, Le

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.recurrence import LONGEST, recurring
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
    needs_history: ClassVar[bool] = True

    no_repeat_ngram_size: Annotated[int, Ge(0), Le(LONGEST)] = 0

    @classmethod
    def tables(cls, stages: Sequence[Self]) -> Mapping[str, object]:
        longest = max(stage.no_repeat_ngram_size for stage in stages)
        return {"compared": [0] * max(1, longest - 1)}

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, size = rows.history, rows.columns["no_repeat_ngram_size"]
        assert history is not None
        n, vocabulary = logits.shape
        equal = recurring(history, len(rows.tables["compared"]))
        repeats = (equal >= size - 1) & (size > 0) & (history.places < history.lengths)
        row = history.lengths.new_ones((n, 1)).cumsum(0) - 1
        ban(logits, (row * vocabulary + history.seen).view(-1), repeats.view(-1))
