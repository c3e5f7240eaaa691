"""Temperature."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

_GREEDY_BELOW = 1e-5


class Temperature(Stage, frozen=True):
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it; 0 is greedy.

    Greedy: the likeliest token that the stages before this one leave is taken without a draw.
    """

    order: ClassVar[int] = 600
    keeps_argmax: ClassVar[bool] = True

    temperature: Annotated[float, Ge(0)] = 1.0

    @property
    def greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        logits.div_(rows.columns["temperature"])
