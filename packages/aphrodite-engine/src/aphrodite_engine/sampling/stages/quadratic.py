"""Quadratic smoothing."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class Quadratic(Stage, frozen=True):
    """Bends the logits along a parabola through the best: near it they flatten, far off they sink.

    A token at distance d below the best logit goes to k * d² + s * d³ below it, where
    k = factor * (3 - curve) / 2 and s = factor * (curve - 1) / 2. Likely tokens become more alike
    and unlikely ones vanish, without a hard edge. By kalomaze.
    """

    order: ClassVar[int] = 1600
    shapes_draws: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("square", "cube")

    smoothing_factor: Annotated[float, Ge(0)] = 0.0
    """Strength of quadratic smoothing of the logits, 0.2 to 1 for a start; 0 is off."""
    smoothing_curve: Annotated[float, Ge(1)] = 1.0
    """Shape of quadratic smoothing: 1 is a parabola, 3 a cubic curve, which cuts off sooner."""

    @property
    def active(self) -> bool:
        return self.smoothing_factor > 0

    @property
    def square(self) -> float:
        """k, the weight of d²."""
        return self.smoothing_factor * (3 - self.smoothing_curve) / 2

    @property
    def cube(self) -> float:
        """s, the weight of d³."""
        return self.smoothing_factor * (self.smoothing_curve - 1) / 2

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.bend(logits, rows.columns["square"], rows.columns["cube"])
