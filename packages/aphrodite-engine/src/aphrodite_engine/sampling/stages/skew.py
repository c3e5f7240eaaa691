"""Skew."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class Skew(Stage, frozen=True):
    """Shifts probability along the sorted tokens, above 0 to unlikelier, below to likelier ones.

    The cumulative probability q of the tokens, likeliest first, becomes q to the power exp(skew),
    so no token is removed. Try 0.1 to 1; 0 is off.
    """

    order: ClassVar[int] = 1900
    shapes_draws: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("power",)

    skew: Annotated[float, Ge(-20), Le(20)] = 0.0

    @property
    def power(self) -> float:
        """What cumulative probabilities are raised to."""
        return math.exp(self.skew)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.skew(logits, rows.columns["power"])
