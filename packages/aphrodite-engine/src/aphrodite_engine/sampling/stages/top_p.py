"""Top-p."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le
from torch import Tensor

from aphrodite_engine.sampling.blocks import keep, largest, total
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

_LOOK = 256


class TopP(Stage, frozen=True):
    """Keeps the likeliest tokens that together reach probability p (arXiv 1904.09751); 1 is off.

    Tokens exactly as likely as the last of them stay too.
    """

    order: ClassVar[int] = 900
    keeps_argmax: ClassVar[bool] = True

    top_p: Annotated[float, Gt(0), Le(1)] = 1.0

    @classmethod
    def apply(cls, logits: Tensor, rows: Rows) -> None:
        share, probabilities = rows.columns["top_p"], torch.softmax(logits, -1)
        mass = share * total(probabilities)  # softmax sums to 1 only to five digits
        top = largest(probabilities, min(_LOOK, logits.shape[1]))
        missed = (top.cumsum(-1, dtype=torch.float64) < mass).sum(-1, keepdim=True)
        last = top.gather(1, missed.clamp(max=top.shape[1] - 1))
        if int(missed.max()) == _LOOK:
            flat = (missed[:, 0] == _LOOK).nonzero()[:, 0]
            last[flat] = _bisect(probabilities[flat], mass[flat], last[flat])
        keep(logits, probabilities, last.masked_fill(share == 1, 0))


def _bisect(probabilities: Tensor, mass: Tensor, high: Tensor) -> Tensor:
    """A probability [n, 1] that exactly the likeliest tokens that reach `mass` [n, 1] have.

    It is below `high` [n, 1], whose tokens do not reach it. A sort of 262k tokens takes 23 ms on
    one core, each of about 17 turns here 0.1.
    """
    # Positive floats are ordered as their bits are. All tokens below `low` are not worth the rest.
    rest = (total(probabilities) - mass).clamp(min=0)
    low = (rest / (4 * probabilities.shape[1])).float().view(torch.int32)
    high = high.view(torch.int32)
    between = torch.full_like(mass, 2.0)  # probability of [low, high)
    reached = torch.zeros_like(mass)  # probability from high up
    kept = torch.empty_like(probabilities)
    while bool(((high - low > 1) & (between >= 2 * low.view(torch.float32))).any()):
        middle = low + (high - low) // 2
        torch.ge(probabilities, middle.view(torch.float32), out=kept)
        above = total(kept.mul_(probabilities))
        enough = above >= mass
        between = torch.where(enough, above - reached, between + reached - above)
        reached = torch.where(enough, reached, above)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low.view(torch.float32)
