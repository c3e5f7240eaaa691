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

    smoothing_factor: Annotated[float, Ge(0)] = 0.0
    """Strength of quadratic smoothing of the logits, 0.2 to 1 for a start; 0 is off."""
    smoothing_curve: Annotated[float, Ge(1)] = 1.0
    """Shape of quadratic smoothing: 1 is a parabola, 3 a cubic curve, which cuts off sooner."""

    @property
    def active(self) -> bool:
        return self.smoothing_factor > 0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        factor, curve = rows.columns["smoothing_factor"], rows.columns["smoothing_curve"]
        rows.ops.bend(logits, factor * (3 - curve) / 2, factor * (curve - 1) / 2)
