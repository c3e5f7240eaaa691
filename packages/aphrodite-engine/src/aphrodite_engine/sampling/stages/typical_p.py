"""Locally typical sampling."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class TypicalP(Stage, frozen=True):
    """Keeps the tokens nearest to the expected surprise that reach this probability; 1 is off.

    Surprise is the negative logarithm of a token's probability, and what is expected is its mean,
    the entropy. Dull tokens, even the likeliest, go as well as wild ones. Try 0.2 to 0.95. Tokens
    exactly as typical as the last that stays stay too (arXiv 2202.00666).
    """

    order: ClassVar[int] = 1500
    shapes_draws: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"typical_p": ("typical",)}

    typical_p: Annotated[float, Ge(0), Le(1)] = 1.0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.keep_typical(logits, rows.columns["typical_p"])
