"""Top-p."""

from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le
from torch import Tensor

from aphrodite_engine.sampling.blocks import keep, largest
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
        probabilities, mass = torch.softmax(logits, -1), rows.columns["top_p"]
        top = largest(probabilities, min(_LOOK, logits.shape[1]))
        missed = (top.cumsum(-1) < mass).sum(-1, keepdim=True)
        last = top.gather(1, missed.clamp(max=top.shape[1] - 1))
        flat = (missed[:, 0] == _LOOK).nonzero()[:, 0]
        if len(flat):
            last[flat] = _bisect(probabilities[flat], mass[flat], last[flat])
        keep(logits, probabilities, last)


def _bisect(probabilities: Tensor, mass: Tensor, high: Tensor) -> Tensor:
    """A probability [n, 1] that exactly the likeliest tokens that reach `mass` [n, 1] have.

    It is below `high` [n, 1], whose tokens do not reach it. A sort of 262k tokens takes 23 ms on
    one core, each of about 17 turns here 0.1.
    """
    # Positive floats are ordered as their bits are. What lies below `low` cannot make up 1 - mass.
    high = high.view(torch.int32)
    low = ((1 - mass).clamp(min=0) / (2 * probabilities.shape[1])).view(torch.int32)
    kept = torch.empty_like(probabilities)
    between = torch.full_like(mass, 2.0, dtype=torch.float64)  # mass of [low, high)
    reached = torch.zeros_like(between)  # mass from high up
    while bool(((high - low > 1) & (between >= 2 * low.view(torch.float32))).any()):
        middle = low + (high - low) // 2
        torch.ge(probabilities, middle.view(torch.float32), out=kept)
        total = kept.mul_(probabilities).sum(-1, keepdim=True, dtype=torch.float64)
        enough = total >= mass
        between = torch.where(enough, total - reached, between + reached - total)
        reached = torch.where(enough, reached, total)
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    return low.view(torch.float32)
