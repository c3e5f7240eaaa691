"""Min-p."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from aphrodite_engine.sampling.logarithm import log
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class MinP(Stage, frozen=True):
    """Removes tokens less likely than this share of the likeliest (arXiv 2407.01082); 0 is off."""

    order: ClassVar[int] = 1100
    keeps_argmax: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("gap",)

    min_p: Annotated[float, Ge(0), Le(1)] = 0.0

    @property
    def gap(self) -> float:
        """By how much a logit of this share differs from the largest."""
        return log(self.min_p)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.keep_near(logits, rows.columns["gap"])
