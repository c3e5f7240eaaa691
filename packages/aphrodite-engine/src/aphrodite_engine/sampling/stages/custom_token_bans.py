"""Bans of single tokens."""

from typing import TYPE_CHECKING, ClassVar

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.spelling import items_in
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class CustomTokenBans(Stage, frozen=True):
    """Tokens that never occur in the output, as ids; empty is off.

    A list, or one in a string, such as 3,7. Without effect where no token would be left.
    """

    order: ClassVar[int] = 120
    beams: ClassVar[bool] = True

    custom_token_bans: tuple[TokenId, ...] = ()

    @classmethod
    def read(cls, name: str, value: object) -> object:
        return items_in(name, value) if isinstance(value, str) else value

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        banned = rows.entries["custom_token_bans"]
        ban(logits, banned.row * logits.shape[1] + banned.token)
