"""A ban of end-of-text."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import msgspec

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor


class BanEosToken(Stage, frozen=True):
    """End-of-text never occurs in the output, which therefore goes on to one of its limits.

    All tokens that end a text by themselves are banned; stop_token_ids are not. Without effect
    where no token would be left.
    """

    order: ClassVar[int] = 125
    beams: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "ban_eos_token": ("use_default_badwordsids",)
    }
    hidden: ClassVar[frozenset[str]] = frozenset({"ends"})

    ban_eos_token: bool = False
    """End-of-text never occurs in the output."""
    ends: tuple[TokenId, ...] = ()
    """The tokens that are end-of-text."""

    def resolve(self, tokenizer: Tokenizer) -> Stage:
        ends = tuple(sorted(tokenizer.end_ids)) if self.ban_eos_token else ()
        return msgspec.structs.replace(self, ends=ends)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        banned = rows.entries["ends"]
        ban(logits, banned.row * logits.shape[1] + banned.token)
