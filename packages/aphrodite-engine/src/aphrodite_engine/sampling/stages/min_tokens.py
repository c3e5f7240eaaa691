"""A least length of the output."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class MinTokens(Stage, frozen=True):
    """Bans the tokens that would end the completion before a position.

    Without effect where no token would be left.
    """

    order: ClassVar[int] = 100
    wire: ClassVar[bool] = False

    first_end: Annotated[int, Ge(0)] = 0
    """First position, counted from the prompt's first token, at which they may stand."""
    end_tokens: tuple[TokenId, ...] = ()

    def last_place(self, prompt_length: int) -> int | None:
        return self.first_end - 1

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        ends = rows.entries["end_tokens"]
        early = (rows.positions < rows.columns["first_end"])[ends.row, 0]
        ban(logits, ends.row * logits.shape[1] + ends.token, early)
