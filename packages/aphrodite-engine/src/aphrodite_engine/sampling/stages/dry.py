"""DRY."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import msgspec
from annotated_types import Ge

from aphrodite_engine.sampling.breakers import Breakers, breaker_tables, find_breakers, last_break
from aphrodite_engine.sampling.rows import History, Rows
from aphrodite_engine.sampling.spelling import texts_in
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.suffix import suffix
from aphrodite_engine.sampling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 1e30  # a penalty stays a number, so no token becomes impossible
_MOST_GROWTH = 80.0


class Dry(Stage, frozen=True):
    """Makes tokens less likely that would continue a repetition, the more the longer it is.

    If the last tokens, `length` of them, have occurred before, the token that followed them loses
    multiplier · base^(length - allowed_length); the longest repetition counts, and none that is
    shorter than allowed_length. Good against looping without touching single words, as repetition
    penalties do: 0.8 is a common multiplier. Repetitions of any length count. By p-e-w
    (github.com/oobabooga/text-generation-webui/pull/5677).
    """

    order: ClassVar[int] = 300
    needs_history: ClassVar[bool] = True
    needs_repeats: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("growth",)
    remembers: ClassVar[tuple[str, ...]] = ("break_begin", "break_end")
    recalls_all: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"dry_range": ("dry_penalty_last_n",)}
    off_values: ClassVar[Mapping[str, tuple[float, ...]]] = {"dry_range": (-1,)}
    empty_values: ClassVar[frozenset[str]] = frozenset({"dry_sequence_breakers"})
    hidden: ClassVar[frozenset[str]] = frozenset({"breakers"})

    dry_multiplier: Annotated[float, Ge(0)] = 0.0
    """How strong the penalty is; 0 is off."""
    dry_base: Annotated[float, Ge(1)] = 1.75
    """By how much the penalty grows with each further token of the repetition."""
    dry_allowed_length: Annotated[int, Ge(0)] = 2
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

    @property
    def growth(self) -> float:
        """Of the penalty's logarithm, with each further token."""
        return math.log(self.dry_base)

    def recall(self, tokens: Sequence[int]) -> Mapping[str, float]:
        begin, end = last_break(self.breakers, tokens)
        return {"break_begin": begin, "break_end": end}

    @classmethod
    def tables(cls, stages: Sequence[Self]) -> Mapping[str, object]:
        return breaker_tables([stage.breakers for stage in stages])

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, columns, heads = rows.history, rows.columns, rows.tables["heads"]
        assert history is not None
        reach, allowed = columns["dry_range"], columns["dry_allowed_length"]
        start = (history.lengths - reach).clamp_(min=0).where(reach > 0, 0)
        shortest = allowed.clamp(min=1)
        found = history.repeats(shortest)
        length = found.length.minimum(found.place - found.of(start))
        if heads.shape[-1] > 1:
            rows.notes.update(_last_break(history, rows))
            begin, end = rows.notes["break_begin"], rows.notes["break_end"]
            since = (history.lengths - end.long()).where(begin >= start, history.lengths)
            length = length.minimum(found.of(since))
            token = found.token.clamp(max=heads.shape[-1] - 1)
            alone = heads[found.of(rows.tables["which"]), 0, token] & 1
            length = length.masked_fill_(alone.bool(), 0)
        growth = found.of(columns["growth"]) * (length - found.of(allowed))
        penalty = growth.clamp_(max=_MOST_GROWTH).exp_() * found.of(columns["dry_multiplier"])
        penalty = penalty.clamp_(max=_MOST).masked_fill_(length < found.of(shortest), 0)
        # A token that recurs keeps the least of its values.
        flat, place = logits.view(-1), found.within(logits.shape[1])
        flat.scatter_reduce_(0, place, flat.gather(0, place) - penalty.view(-1), "amin")

    @classmethod
    def update(cls, tokens: "Tensor", rows: Rows) -> Mapping[str, "Tensor"]:
        return rows.notes or rows.remembered


def _last_break(history: History, rows: Rows) -> dict[str, "Tensor"]:
    """What is remembered, or a breaker that the last token may have made whole."""
    tables, remembered = rows.tables, rows.remembered
    which, heads, tails = tables["which"], tables["heads"], tables["tails"][tables["which"][:, 0]]
    longest = tails.shape[-1] if tails.shape[1] > 1 else 0  # of the tails; 0: all break alone
    count = longest + 1
    age = which.new_ones(count).cumsum(0) - 1
    tokens = suffix(history, count).flip(1)  # [n, count], newest first
    place = tokens.where(tokens >= 0, heads.shape[-1]).clamp(max=heads.shape[-1] - 1)
    bits = heads[which[:, :, None], tables["word"], place[:, :, None]]  # [n, count, G]
    begins = (bits >> tables["bit"] & 1).bool()
    if longest:
        after = age[:, None] - age[:longest] - 1  # [count, M]: ages of the tokens that follow
        following = tokens[:, after.clamp(min=0)].masked_fill_(after < 0, -2)[:, :, None]
        due = tails[:, None]
        begins &= ((following == due) | (due < 0)).all(-1)
    # The youngest beginning counts, and of several tails the longest.
    rest = longest - tables["lengths"][which[:, 0]][:, None]
    rank = (age[:, None] * count + rest).masked_fill(~begins, count * count)
    best = rank.flatten(1).amin(1, keepdim=True)
    begin = history.lengths - 1 - best // count
    end = begin + 1 + longest - best % count
    here = best < count * count
    return {
        "break_begin": begin.where(here, remembered["break_begin"]),
        "break_end": end.where(here, remembered["break_end"]),
    }
