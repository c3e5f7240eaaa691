"""Adaptive-p."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class AdaptiveP(Stage, frozen=True):
    """Prefers tokens whose probability is near a target, and aims so that the mean comes out there.

    A token's weight depends on how far its probability, as the stages before this one leave it, is
    from where it aims: at the target at first, and then as far on the other side of the target as
    the mean of the chosen tokens is on this one. It makes text creative without a high temperature;
    use min-p before it, as it lifts the most unlikely tokens, too. It comes last.
    """

    order: ClassVar[int] = 2100
    shapes_draws: ClassVar[bool] = True
    remembers: ClassVar[tuple[str, ...]] = ("mean",)

    adaptive_target: Annotated[float, Ge(-1), Le(1)] = 0.0
    """Mean probability of the chosen tokens; 0 and below is off."""
    adaptive_decay: Annotated[float, Ge(0), Le(0.99)] = 0.9
    """What is left, after one token, of its predecessors' weight in the mean; 0 forgets them."""

    @property
    def active(self) -> bool:
        return self.adaptive_target > 0

    @property
    def mean(self) -> float:
        """Of the chosen tokens' probabilities; as if all before the first were on target."""
        return self.adaptive_target

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        target = rows.columns["adaptive_target"]
        aim = (2 * target - rows.remembered["mean"]).clamp_(0, 1).masked_fill_(target <= 0, -1)
        rows.notes["probability"] = rows.ops.prefer(logits, aim)

    @classmethod
    def update(cls, tokens: "Tensor", rows: Rows) -> Mapping[str, "Tensor"]:
        chosen = rows.notes["probability"].gather(1, tokens)
        decay = rows.columns["adaptive_decay"]
        return {"mean": decay * rows.remembered["mean"] + (1 - decay) * chosen}
