"""Temperature, fixed or dynamic."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Gt

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

_GREEDY_BELOW = 1e-5


class Temperature(Stage, frozen=True):
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it.

    A dynamic temperature is near its minimum where the model is sure and near its maximum where it
    is not. How sure it is: its entropy as a share of the largest that the possible tokens allow.
    """

    order: ClassVar[int] = 600
    keeps_argmax: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("low", "high")
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "dynatemp_min": ("dynatemp_low",),
        "dynatemp_max": ("dynatemp_high",),
    }

    temperature: Annotated[float, Ge(0)] = 1.0
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it; 0 is greedy.

    Greedy: the likeliest token that the stages before this one leave is taken without a draw.
    """
    dynatemp_min: Annotated[float, Ge(0)] = 0.0
    """Temperature, instead of the fixed one, where the model is sure.

    Dynamic temperature is off if both minimum and maximum are 0. A fixed temperature of 0 is greedy
    all the same.
    """
    dynatemp_max: Annotated[float, Ge(0)] = 0.0
    """Temperature where every possible token is as likely as any other."""
    dynatemp_range: Annotated[float, Ge(0)] = 0.0
    """Makes the fixed temperature the middle of a dynamic one that goes so far to either side.

    Used if neither minimum nor maximum is given; the lower end is at least 0; 0 is off.
    """
    dynatemp_exponent: Annotated[float, Gt(0)] = 1.0
    """Of the uncertainty, 0 to 1: above 1 a dynamic temperature stays low for longer."""
    dynamic_temperature: bool = True
    """False switches a dynamic temperature off, whatever its range."""

    @property
    def active(self) -> bool:
        return (self.low, self.high) != (1, 1)

    @property
    def greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW

    @property
    def low(self) -> float:
        """Temperature of a sure model."""
        return self._ends[0]

    @property
    def high(self) -> float:
        """Temperature of a model that knows nothing."""
        return self._ends[1]

    @property
    def _ends(self) -> tuple[float, float]:
        fixed, reach = self.temperature, self.dynatemp_range
        if self.dynamic_temperature and not self.greedy:
            if self.dynatemp_min or self.dynatemp_max:
                return self.dynatemp_min, self.dynatemp_max
            return max(0.0, fixed - reach), fixed + reach
        return fixed, fixed

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        low, high = rows.columns["low"], rows.columns["high"]
        if rows.given.isdisjoint(("dynatemp_min", "dynatemp_max", "dynatemp_range")):
            rows.ops.divide(logits, low)
            return
        entropy, _, possible = rows.ops.uncertainty(logits)
        unsure = (entropy / possible.double().log().clamp(min=1e-9)).clamp(0, 1)
        reach = (high - low).double() * unsure.pow(rows.columns["dynatemp_exponent"].double())
        rows.ops.divide(logits, (low + reach).clamp(min=_GREEDY_BELOW).float())
