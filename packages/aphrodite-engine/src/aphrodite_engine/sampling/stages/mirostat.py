"""Mirostat."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge, Le

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

_BIT = math.log(2)
_RANKS = 100
"""Of the likeliest tokens, that the exponent is estimated from."""
_TINY = 1e-9


class Mirostat(Stage, frozen=True):
    """Holds the surprise of a text at a target, whatever its length (arXiv 2007.14966).

    A token's surprise is minus the binary logarithm of its probability, as the stages before this
    one leave it and before it removes any. After each token the limit up to which surprise is
    allowed moves against the error: text that grows dull gets more freedom, text that grows wild
    gets less. Each completion has a limit of its own. Use it with a temperature at most: other
    stages that remove tokens stay on beside it and work against it.
    """

    order: ClassVar[int] = 2000
    keeps_argmax: ClassVar[bool] = True
    shapes_draws: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("by_rank", "by_surprise")
    remembers: ClassVar[tuple[str, ...]] = ("limit",)
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"mirostat_mode": ("mirostat",)}

    mirostat_mode: Annotated[int, Ge(0), Le(2)] = 0
    """Version: 2 removes tokens more surprising than the limit; 1 keeps as many of the likeliest as
    reach it under Zipf's law, whose exponent it estimates; 0 is off."""
    mirostat_tau: Annotated[float, Ge(0), Le(1000)] = 5.0
    """Target: mean surprise of a token in bits; the limit begins at twice this."""
    mirostat_eta: Annotated[float, Ge(0), Le(1000)] = 0.1
    """How far the limit moves for each bit of error; 0 leaves it where it begins."""

    @property
    def active(self) -> bool:
        return self.mirostat_mode > 0

    @property
    def by_rank(self) -> float:
        return float(self.mirostat_mode == 1)

    @property
    def by_surprise(self) -> float:
        return float(self.mirostat_mode == 2)

    @property
    def limit(self) -> float:
        """Largest surprise allowed, in bits."""
        return 2 * self.mirostat_tau

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        total = rows.ops.logsumexp(logits)[:, None]
        rows.notes.update(total=total, logits=logits.clone())
        limit = rows.remembered["limit"]
        if "by_rank" in rows.given:
            count = _count(logits, limit)
            off = rows.columns["by_rank"] == 0
            rows.ops.keep_top_k(logits, count.masked_fill(off, 0))
        if "by_surprise" in rows.given:
            least = (total - limit * _BIT).minimum(logits.amax(-1, keepdim=True))
            off = rows.columns["by_surprise"] == 0
            rows.ops.keep(logits, least.masked_fill(off, -math.inf))

    @classmethod
    def update(cls, tokens: "Tensor", rows: Rows) -> Mapping[str, "Tensor"]:
        surprise = (rows.notes["total"] - rows.notes["logits"].gather(1, tokens)) / _BIT
        error = surprise - rows.columns["mirostat_tau"]
        return {"limit": rows.remembered["limit"] - rows.columns["mirostat_eta"] * error}


def _count(logits: "Tensor", limit: "Tensor") -> "Tensor":
    """How many of the likeliest tokens have a surprise of at most the limit, [n, 1] int64.

    If probability falls with the rank's power s, logarithms at neighbouring ranks differ by s times
    those of the ranks: s is the slope of least squares. The surprise of rank k is the limit where
    2^limit = k^s * (1 - V^(1 - s)) / (s - 1).
    """
    vocabulary = logits.shape[1]
    top = logits.topk(min(_RANKS, vocabulary)).values.double()
    possible = top[:, 1:] > -math.inf
    gaps = (top[:, :-1] - top[:, 1:]).where(possible, 0.0)
    ranks = top.new_ones(1, top.shape[1]).cumsum(-1)
    steps = (ranks[:, 1:] / ranks[:, :-1]).log().where(possible, 0.0)
    square = (steps * steps).sum(-1, keepdim=True).clamp(min=_TINY)
    slope = ((gaps * steps).sum(-1, keepdim=True) / square).clamp(min=_TINY)
    over = slope - 1
    over = over.masked_fill(over.abs() < _TINY, _TINY)
    ends = math.log(max(vocabulary, 2))
    power = (over / -(over * -ends).expm1()).log() + limit.double() * _BIT
    return (power / slope).clamp(0, ends + 1).exp().long()
