"""DRY."""

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Self

import msgspec
from annotated_types import Ge, Le

from aphrodite_engine.sampling.breakers import Breakers, breaker_tables, find_breakers
from aphrodite_engine.sampling.recurrence import recurring, suffix
from aphrodite_engine.sampling.rows import History, Rows
from aphrodite_engine.sampling.spelling import texts_in
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_LONGEST: Final = 64
"""Tokens of a repetition; O(64) comparisons per token of the history for each token drawn."""
_MOST = 1e30  # a penalty stays a number, so no token becomes impossible
_MOST_GROWTH = 80.0


class Dry(Stage, frozen=True):
    """Makes tokens less likely that would continue a repetition, the more the longer it is.

    If the last tokens, `length` of them, have occurred before, the token that followed them loses
    multiplier · base^(length - allowed_length); the longest repetition counts, and none that is
    shorter than allowed_length. Good against looping without touching single words, as repetition
    penalties do: 0.8 is a common multiplier. A repetition counts up to 64 tokens. By p-e-w
    (github.com/oobabooga/text-generation-webui/pull/5677).
    """

    order: ClassVar[int] = 300
    needs_history: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"dry_range": ("dry_penalty_last_n",)}
    off_values: ClassVar[Mapping[str, tuple[float, ...]]] = {"dry_range": (-1,)}
    empty_values: ClassVar[frozenset[str]] = frozenset({"dry_sequence_breakers"})
    hidden: ClassVar[frozenset[str]] = frozenset({"breakers"})

    dry_multiplier: Annotated[float, Ge(0)] = 0.0
    """How strong the penalty is; 0 is off."""
    dry_base: Annotated[float, Ge(1)] = 1.75
    """By how much the penalty grows with each further token of the repetition."""
    dry_allowed_length: Annotated[int, Ge(0), Le(_LONGEST)] = 2
    """Tokens of the shortest repetition that is penalised."""
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    """Texts that no repetition reaches across, and that are never penalised if they are a token or
    part of one. A list, or one in a string: as JSON, with or without brackets, or bare between
    commas, with JSON's escapes. An empty one is none.
    """
    dry_range: Annotated[int, Ge(0)] = 0
    """Only this many last tokens of prompt and output are looked at; 0 is all."""
    breakers: Breakers = ()
    """The sequence breakers as tokens."""

    @property
    def active(self) -> bool:
        return self.dry_multiplier > 0

    @classmethod
    def read(cls, name: str, value: object) -> object:
        if name == "dry_sequence_breakers" and isinstance(value, str):
            return texts_in(name, value) if value else []
        return value

    def resolve(self, tokenizer: Tokenizer) -> Stage:
        breakers = find_breakers(self.dry_sequence_breakers, tokenizer)
        return msgspec.structs.replace(self, breakers=breakers)

    def penalty(self, length: int) -> float:
        """Of a repetition of so many tokens."""
        if length < max(1, self.dry_allowed_length):
            return 0.0
        growth = (length - self.dry_allowed_length) * math.log(self.dry_base)
        return min(_MOST, self.dry_multiplier * math.exp(min(growth, _MOST_GROWTH)))

    @classmethod
    def tables(cls, stages: Sequence[Self]) -> Mapping[str, object]:
        by_length = array("f", (each.penalty(n) for each in stages for n in range(_LONGEST + 1)))
        penalties = memoryview(bytearray(by_length.tobytes()))
        return {
            **breaker_tables([stage.breakers for stage in stages]),
            "penalties": penalties.cast("f", [len(stages), _LONGEST + 1]),
        }

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, reach, tables = rows.history, rows.columns["dry_range"], rows.tables
        assert history is not None
        seen, start = history.seen, (history.lengths - reach).clamp_(min=0).where(reach > 0, 0)
        length = recurring(history, _LONGEST).minimum(history.places - start).clamp_(min=0)
        heads = tables["heads"]
        if heads.shape[-1] > 1:
            token = seen.clamp(max=heads.shape[-1] - 1)
            alone = (heads[tables["which"], 0, token] & 1).bool()
            length = length.minimum(_since_breaker(history, start, tables)).masked_fill_(alone, 0)
        # A token that recurs keeps the least of its values.
        less = logits.gather(1, seen) - tables["penalties"].gather(1, length)
        logits.scatter_reduce_(1, seen, less, "amin")


def _since_breaker(history: History, start: "Tensor", tables: Mapping[str, "Tensor"]) -> "Tensor":
    """[n, 1] int64: tokens after the breaker that begins last; many if there is none."""
    which, heads, tails = tables["which"], tables["heads"], tables["tails"][tables["which"][:, 0]]
    longest = tails.shape[-1]
    count = _LONGEST + longest
    age = which.new_ones(count).cumsum(0) - 1
    tokens = suffix(history, count).flip(1)  # [n, count], newest first
    place = tokens.where(tokens >= 0, heads.shape[-1]).clamp(max=heads.shape[-1] - 1)
    bits = heads[which[:, :, None], tables["word"], place[:, :, None]]  # [n, count, G]
    begins = (bits >> tables["bit"] & 1).bool()
    begins &= (age < history.lengths - start)[:, :, None]
    if tails.shape[1] > 1:  # else all break alone
        after = age[:, None] - age[:longest] - 1  # [count, M]: ages of the tokens that follow
        following = tokens[:, after.clamp(min=0)].masked_fill_(after < 0, -2)[:, :, None]
        due = tails[:, None]
        begins &= ((following == due) | (due < 0)).all(-1)
    # The youngest beginning counts, and of several tails the longest.
    rest = longest - tables["lengths"][which[:, 0]][:, None]
    rank = (age[:, None] * (longest + 1) + rest).masked_fill(~begins, (longest + 1) * count)
    best = rank.flatten(1).amin(1, keepdim=True)
    return best // (longest + 1) - (longest - best % (longest + 1))
