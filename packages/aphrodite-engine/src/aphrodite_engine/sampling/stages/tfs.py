"""Tail-free sampling."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Gt, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class Tfs(Stage, frozen=True):
    """Removes the tail that begins where the curve of sorted probabilities turns flat; 1 is off.

    The curvature of that curve, summed up from the likeliest token on, may reach this share of the
    whole; what comes after goes. Try 0.9 to 0.99. Tokens exactly as likely as the last that stays
    stay too. By Trenton Bricken (trentbrick.github.io/Tail-Free-Sampling).
    """

    order: ClassVar[int] = 1200
    keeps_argmax: ClassVar[bool] = True

    tfs: Annotated[float, Gt(0), Le(1)] = 1.0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.keep_tail_free(logits, rows.columns["tfs"])
