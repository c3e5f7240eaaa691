"""Bans of phrases, whatever tokens spell them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class BannedStrings(Stage, frozen=True):
    """Texts that the output may not hold, whatever tokens spell them; empty is off.

    When one is complete, the output is taken back to before the token in which it began, that token
    is banned at that place, and generation goes on from there. Text that may become a banned
    one is held back, and tokens taken back count nowhere in usage. A stop string that is complete
    first ends the output first. Where every other token is banned too, the text is let through.
    """

    order: ClassVar[int] = 150
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "banned_strings": ("banned_phrases", "banned_tokens")
    }
    hidden: ClassVar[frozenset[str]] = frozenset({"place", "tokens"})

    banned_strings: tuple[str, ...] = ()
    """Texts that the output may not hold; empty ones are left out.

    When one is complete, the output is taken back to before the token in which it began, that token
    is banned at that place, and generation goes on from there. Text that may become a banned one is
    held back.
    """
    banned_strings_case_sensitive: bool = False
    """Upper and lower case are different letters."""
    place: int = 0
    """Index, counted from the prompt's first token, at which `tokens` are banned."""
    tokens: tuple[TokenId, ...] = ()
    """What the text that was taken back began with."""

    @property
    def active(self) -> bool:
        return any(self.banned_strings)

    @property
    def acts(self) -> bool:
        return bool(self.tokens)

    def last_place(self, prompt_length: int) -> int | None:
        return self.place

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        banned = rows.entries["tokens"]
        here = (rows.positions == rows.columns["place"])[banned.row, 0]
        ban(logits, banned.row * logits.shape[1] + banned.token, here)
