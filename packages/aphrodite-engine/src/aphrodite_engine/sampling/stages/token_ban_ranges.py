"""Bans of tokens at some places of the output."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from annotated_types import Ge, Le

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

Count = Annotated[int, Ge(0), Le(2**31 - 1)]
BanRange = tuple[tuple[TokenId, ...], Count, Count]


class TokenBanRanges(Stage, frozen=True):
    """Bans tokens for a part of the output; empty is off.

    A list of [token ids, start, length]: none of the tokens may be one of the `length` tokens of
    the output that begin with token number `start`, counted from 0. Without effect where no token
    would be left.
    """

    order: ClassVar[int] = 130
    beams: ClassVar[bool] = True
    needs_history: ClassVar[bool] = True

    token_ban_ranges: tuple[BanRange, ...] = ()

    def last_place(self, prompt_length: int) -> int | None:
        ends = (start + length for _, start, length in self.token_ban_ranges)
        return prompt_length + max(ends, default=0) - 1

    def after(self, output: Sequence[int]) -> Stage:
        at = len(output)
        return TokenBanRanges(
            tuple(
                (tokens, 0, 1)
                for tokens, start, length in self.token_ban_ranges
                if start <= at < start + length
            )
        )

    @classmethod
    def tables(cls, stages: Sequence[Self]) -> Mapping[str, object]:
        flat = [
            (row, token, start, start + length)
            for row, stage in enumerate(stages)
            for tokens, start, length in stage.token_ban_ranges
            for token in tokens
        ]
        names = ("row", "token", "start", "end")
        return {name: [each[at] for each in flat] for at, name in enumerate(names)}

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, tables = rows.history, rows.tables
        assert history is not None
        row = tables["row"]
        at = (history.lengths - history.prompts)[row, 0]
        active = (at >= tables["start"]) & (at < tables["end"])
        ban(logits, row * logits.shape[1] + tables["token"], active)
