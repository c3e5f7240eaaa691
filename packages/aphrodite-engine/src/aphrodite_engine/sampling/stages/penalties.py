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
    computed: ClassVar[tuple[str, ...]] = ("older_penalty",)
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "repetition_penalty": ("rep_pen",),
        "rep_pen_range": ("repetition_penalty_range", "penalty_range"),
    }
    off_values: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "rep_pen_range": (-1,),
        "rep_pen_slope": (0,),
    }

    repetition_penalty: Annotated[float, Gt(0)] = 1.0
    """Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off."""
    presence_penalty: Penalty = 0.0
    """Subtracted from the logits of tokens in the output; 0 is off."""
    frequency_penalty: Penalty = 0.0
    """Subtracted from a token's logit for each time it stands in the output; 0 is off."""
    rep_pen_range: Annotated[int, Ge(0)] = 0
    """Only this many last tokens of prompt and output count for the three penalties; 0 is all."""
    rep_pen_slope: Annotated[float, Gt(0), Le(1)] = 1.0
    """How much of the repetition penalty is left for tokens that stand in the older half of the
    range alone: they get 1 + slope · (penalty - 1). 1, the same for all, is off.
    """
    repetition_decay: Annotated[int, Ge(0)] = 0
    """Over this many tokens before the range the repetition penalty fades to nothing, in equal
    steps, instead of ending at once; 0 is off.
    """

    @property
    def active(self) -> bool:
        return (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1, 0, 0)

    @property
    def older_penalty(self) -> float:
        """The repetition penalty in the older half."""
        if self.rep_pen_slope in (0, 1):
            return self.repetition_penalty
        return 1 + self.rep_pen_slope * (self.repetition_penalty - 1)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, columns = rows.history, rows.columns
        assert history is not None
        reach = columns["rep_pen_range"]
        start = (history.lengths - reach).clamp_(min=0).where(reach > 0, 0)
        seen = history.seen()
        if "repetition_penalty" in rows.given:
            _repetition(logits, seen, rows, start)
        if rows.given.isdisjoint(("presence_penalty", "frequency_penalty")):
            return
        output = history.output()
        tokens, counts = output.tokens, output.counts
        if "rep_pen_range" in rows.given:  # what does not count is taken for the last, which does
            counts = counts & (output.places >= start)
            tokens = tokens.where(counts, seen[:, -1:])
        presence = columns["presence_penalty"] * output.counts[:, :1]
        logits.scatter_(1, tokens, logits.gather(1, tokens) - presence)
        logits.scatter_add_(1, tokens, -(columns["frequency_penalty"] * counts))


def _repetition(logits: "Tensor", seen: "Tensor", rows: Rows, start: "Tensor") -> None:
    history, penalty = rows.history, rows.columns["repetition_penalty"]
    assert history is not None
    old = logits.gather(1, seen)
    if rows.given.isdisjoint(("rep_pen_range", "rep_pen_slope")):
        # A token that recurs is written with the same value each time.
        logits.scatter_(1, seen, _penalised(old, penalty))
        return
    # Of a token that recurs the place that says the most counts: it is the newest.
    middle = start + (history.lengths - start) // 2
    older = rows.columns["older_penalty"]
    share = 1 - (start - history.places) / (rows.columns["repetition_decay"] + 1)
    fading = 1 + share.clamp_(min=0) * (older - 1)
    there = penalty.where(history.places >= middle, older.where(history.places >= start, fading))
    new, less = _penalised(old, there), penalty >= 1
    logits.scatter_reduce_(1, seen, new.where(less, float("inf")), "amin")
    logits.scatter_reduce_(1, seen, new.where(~less, float("-inf")), "amax")


def _penalised(logits: "Tensor", penalty: "Tensor") -> "Tensor":
    return (logits / penalty).where(logits > 0, logits * penalty)
