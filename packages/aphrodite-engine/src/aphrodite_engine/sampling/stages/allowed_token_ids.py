"""A vocabulary of the request's own."""

from typing import TYPE_CHECKING, ClassVar

from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class AllowedTokenIds(Stage, frozen=True):
    """The only tokens that the output may hold, as ids; empty is off.

    End-of-text is none of them unless it is listed. Without effect where all of them are already
    impossible.
    """

    order: ClassVar[int] = 110
    beams: ClassVar[bool] = True

    allowed_token_ids: tuple[TokenId, ...] = ()

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        allowed = rows.entries["allowed_token_ids"]
        possible = logits[allowed.row, allowed.token] > float("-inf")
        choices = logits.new_zeros(len(logits)).scatter_add_(0, allowed.row, possible.float())
        change = logits.new_full(logits.shape, float("-inf"))
        change[allowed.row, allowed.token] = 0
        change.masked_fill_((choices == 0)[:, None], 0)
        logits.add_(change)  # what is not finite stays so, and is found
