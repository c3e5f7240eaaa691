"""Min-p."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class MinP(Stage, frozen=True):
    """Removes tokens less likely than this share of the likeliest (arXiv 2407.01082); 0 is off."""

    order: ClassVar[int] = 1100
    keeps_argmax: ClassVar[bool] = True

    min_p: Annotated[float, Ge(0), Le(1)] = 0.0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        # Through float64, whose logarithm rounds to the same float32 at any place in a tensor.
        share = rows.columns["min_p"].double().log().float()
        rows.ops.keep(logits, logits.amax(-1, keepdim=True) + share)
