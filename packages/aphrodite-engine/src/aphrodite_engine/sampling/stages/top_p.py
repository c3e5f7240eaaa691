"""Top-p."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class TopP(Stage, frozen=True):
    """Keeps the likeliest tokens that together reach probability p (arXiv 1904.09751); 1 is off.

    Tokens exactly as likely as the last of them stay too.
    """

    order: ClassVar[int] = 900
    keeps_argmax: ClassVar[bool] = True

    top_p: Annotated[float, Gt(0), Le(1)] = 1.0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.keep_top_p(logits, rows.columns["top_p"])
