"""Exclude top choices."""

import math
from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from annotated_types import Ge, Le

from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.logarithm import log
from aphrodite_engine.sampling.rows import Purpose, Rows
from aphrodite_engine.sampling.stage import Stage
from aphrodite_engine.sampling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 0.5
"""Above, no two tokens can reach the threshold."""


class Xtc(Stage, frozen=True):
    """Removes, now and then, all of several likely tokens but the least likely of them.

    With the given probability, for each token anew, every token that reaches the threshold goes,
    save the least likely one that does. That breaks habits of phrasing where there is a choice, and
    changes nothing where a single token is likely. By p-e-w
    (github.com/oobabooga/text-generation-webui/pull/6335).
    """

    order: ClassVar[int] = 1700
    shapes_draws: ClassVar[bool] = True
    reads_text: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("least",)
    hidden: ClassVar[frozenset[str]] = frozenset({"spared"})

    xtc_probability: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of tokens for which XTC removes the likeliest choices; 0 is off, 0.5 a good start."""
    xtc_threshold: Annotated[float, Ge(0), Le(1)] = 0.1
    """Probability from which on XTC counts a token among the likeliest; above 0.5 is off."""
    xtc_removes_ends: bool = False
    """XTC may remove end-of-text and line breaks, too: texts grow longer and may never end.

    Otherwise it does nothing where one of these is among what it would remove.
    """
    spared: tuple[TokenId, ...] = ()
    """Tokens that it never removes."""

    @property
    def active(self) -> bool:
        return self.xtc_probability > 0 and self.xtc_threshold <= _MOST

    @property
    def least(self) -> float:
        """The logarithm of the threshold."""
        return log(self.xtc_threshold)

    def resolve(self, tokenizer: Tokenizer) -> Stage:
        if self.xtc_removes_ends:
            return self
        spared = tokenizer.end_ids.union(tokenizer.line_breaks)
        return msgspec.structs.replace(self, spared=tuple(sorted(spared)))

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        coin = rows.draws.uniform(Purpose.XTC)[:, None]
        acts = (coin < rows.columns["xtc_probability"]) & (rows.columns["xtc_threshold"] <= _MOST)
        least = rows.ops.logsumexp(logits)[:, None] + rows.columns["least"]
        last = rows.ops.least_from(logits, least)
        spared = rows.entries["spared"]
        wrong = (logits[spared.row, spared.token] > last[spared.row, 0]).to(logits.dtype)
        refused = logits.new_zeros(len(logits)).index_add_(0, spared.row, wrong) > 0
        rows.ops.keep_up_to(logits, last.where(acts & ~refused[:, None], math.inf))
