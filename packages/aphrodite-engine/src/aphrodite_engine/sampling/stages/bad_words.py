"""Bans of words."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import msgspec

from aphrodite_engine.sampling.ban import ban
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.suffix import suffix
from aphrodite_engine.sampling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_ANYTHING = -3


class BadWords(Stage, frozen=True):
    """Words that the output may not hold; empty is off.

    Each is taken as the tokens that the tokenizer makes of it, with and without a space before it;
    the last of them is banned where the output ends in the others. The same word made of other
    tokens is not found. Without effect where no token would be left.
    """

    order: ClassVar[int] = 140
    beams: ClassVar[bool] = True
    needs_history: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    hidden: ClassVar[frozenset[str]] = frozenset({"bad_tokens"})

    bad_words: tuple[str, ...] = ()
    bad_tokens: tuple[tuple[int, ...], ...] = ()
    """The words as tokens."""

    def resolve(self, tokenizer: Tokenizer) -> Stage:
        words = [word.lstrip(" ") or word for word in self.bad_words]
        spelled = [
            tuple(tokenizer.encode_inside(text)) for word in words for text in (word, f" {word}")
        ]
        return msgspec.structs.replace(self, bad_tokens=tuple(dict.fromkeys(filter(None, spelled))))

    def after(self, output: Sequence[int]) -> Stage:
        written = tuple(output)
        due = {
            each[-1:]
            for each in self.bad_tokens
            if len(each) == 1 or written[1 - len(each) :] == each[:-1]
        }
        return BadWords(bad_tokens=tuple(sorted(due)))

    @classmethod
    def tables(cls, stages: Sequence[Self]) -> Mapping[str, object]:
        flat = [(row, each) for row, stage in enumerate(stages) for each in stage.bad_tokens]
        most = max([1, *(len(tokens) - 1 for _, tokens in flat)])
        before = [[_ANYTHING] * (most + 1 - len(each)) + [*each[:-1]] for _, each in flat]
        return {
            "row": [row for row, _ in flat],
            "last": [tokens[-1] for _, tokens in flat],
            "needed": [len(tokens) - 1 for _, tokens in flat],
            "before": before,
        }

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        history, tables = rows.history, rows.tables
        assert history is not None
        row, before = tables["row"], tables["before"]
        if not len(row):
            return
        end = suffix(history, before.shape[1])[row]
        written = (history.lengths - history.prompts)[row, 0] >= tables["needed"]
        active = ((end == before) | (before < 0)).all(-1) & written
        ban(logits, row * logits.shape[1] + tables["last"], active)
