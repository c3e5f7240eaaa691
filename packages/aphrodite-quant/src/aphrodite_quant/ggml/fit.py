"""Scales of runs of numbers, by search: the least weighted squared error over some candidates.

Runs are the last dimension [..., m]; a candidate scale gives codes, codes give the best scale in
closed form, and the candidate whose best scale leaves the least error is kept.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Nearest = Callable[[Tensor], Tensor]
"""The representable number next to each; a table of integers."""


def integers(low: int, high: int) -> Nearest:
    """Whole numbers from low to high."""
    return lambda x: x.round().clamp(low, high)


def inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0 or so small that there is none."""
    reciprocal = 1 / x
    return reciprocal.where(reciprocal.isfinite(), 0.0)


def as_half(scale: Tensor) -> Tensor:
    """What a block that stores float16 has of a scale."""
    return scale.to(torch.float16).float()


def attention(x: Tensor, importance: Tensor | None) -> Tensor:
    """Weight of each number's squared error: of its size, and of its column's importance.

    As large weights matter more than in proportion to their number: sqrt(mean square + square).
    """
    spread = (x.square().mean(-1, keepdim=True) + x.square()).sqrt()
    weight = spread if importance is None else spread * importance
    return weight.where(weight.sum(-1, keepdim=True) > 0, 1.0)


def fit_scale(
    x: Tensor, weight: Tensor, nearest: Nearest, end: int, offsets: Sequence[float]
) -> Tensor:
    """[...]: the scale by which `nearest` numbers are multiplied.

    Candidates bring the number of largest magnitude to `end` plus each offset.
    """
    peak = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    reach = inverse(peak)
    best = torch.zeros_like(peak.squeeze(-1))
    most = torch.full_like(best, -1.0)
    for offset in offsets:
        value = nearest(x * (reach * (end + offset)))
        weighted = weight * value
        product, power = (weighted * x).sum(-1), (weighted * value).sum(-1)
        scale = product * inverse(power)
        gain = scale * product
        best, most = scale.where(gain > most, best), gain.maximum(most)
    return best


def fit_affine(
    x: Tensor, weight: Tensor, top: int, offsets: Sequence[float], *, free: bool
) -> tuple[Tensor, Tensor]:
    """[...] each: scale and minimum, for codes from 0 to `top`; the minimum <= 0 unless `free`.

    Candidates spread the numbers over `top` plus each offset.
    """
    ceiling = torch.inf if free else 0.0
    low, high = x.amin(-1, keepdim=True).clamp(max=ceiling), x.amax(-1, keepdim=True)
    reach = inverse(high - low)
    total, sum_x = weight.sum(-1), (weight * x).sum(-1)
    minimum = (sum_x / total).clamp(max=ceiling)
    best = torch.zeros_like(minimum)
    most = minimum * sum_x
    for offset in offsets:
        code = ((x - low) * (reach * (top + offset))).round().clamp(0, top)
        weighted = weight * code
        sum_q, sum_qq = weighted.sum(-1), (weighted * code).sum(-1)
        sum_qx = (weighted * x).sum(-1)
        spread = total * sum_qq - sum_q.square()
        flat = inverse(spread).where(spread > 1e-5 * total * sum_qq, 0.0)  # else all codes agree
        at = ((sum_qq * sum_x - sum_q * sum_qx) * flat).clamp(max=ceiling)
        scale = (sum_qx - at * sum_q) * inverse(sum_qq)
        gain = scale * sum_qx + at * sum_x
        gain = gain - at * (at * total + scale * sum_q - sum_x)
        better = (gain > most) & (scale > 0)
        best, minimum = scale.where(better, best), at.where(better, minimum)
        most = gain.where(better, most)
    return best, minimum
