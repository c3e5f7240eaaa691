"""One scale times -1, 0 and 1, or -1 and 1."""

import torch
from aphrodite_kernels.layouts import GgmlType
from torch import Tensor

from aphrodite_quant.ggml.fields import half, joined, runs
from aphrodite_quant.ggml.fit import attention, inverse


def tq1_0(x: Tensor, importance: Tensor | None) -> Tensor:
    """48 bytes of five trits, 4 of four, scale; byte b for trits of value t: ceil(256 t / 243)."""
    scale, trits = _trits(x, importance)
    parts = (trits[:, :160].view(-1, 5, 32), trits[:, 160:240].view(-1, 5, 16))
    last = trits[:, 240:].view(-1, 4, 4)
    parts = (*parts, torch.cat((last, torch.zeros_like(last[:, :1])), 1))
    powers = trits.new_tensor((81, 27, 9, 3, 1))[:, None]
    values = torch.cat([(part * powers).sum(1) for part in parts], 1)
    return torch.cat((((values * 256 + 242) // 243).to(torch.uint8), half(scale)), 1)


def tq2_0(x: Tensor, importance: Tensor | None) -> Tensor:
    """64 bytes of 2-bit values, scale; the scale times q - 1."""
    scale, trits = _trits(x, importance)
    return torch.cat((runs(trits, (0, 2, 4, 6), 32), half(scale)), 1)


def q1_0(x: Tensor, importance: Tensor | None) -> Tensor:
    """scale, 128 bits: the scale is the mean magnitude, weighted by importance."""
    weight = torch.ones_like(x) if importance is None else importance
    scale = (weight * x.abs()).sum(1) / weight.sum(1)
    return torch.cat((half(scale), joined((x >= 0).int(), range(8))), 1)


def _trits(x: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scale [n], and codes [n, 256] int32 of which 0, 1, 2 stand for -1, 0, 1.

    Without importance the largest magnitude is the scale, as for weights that are ternary already;
    with it, the best scale of all.
    """
    scale = x.abs().amax(1) if importance is None else _best(x, attention(x, importance))
    scaled = x * inverse(scale)[:, None]
    codes = (scaled.abs() + 0.5).floor().clamp(max=1).copysign(scaled)
    return scale, codes.int() + 1


def _best(x: Tensor, weight: Tensor) -> Tensor:
    """The scale of least error: the mean of the k largest magnitudes, for the best k."""
    size, order = x.abs().sort(1, descending=True)
    sums = weight.gather(1, order)
    product, power = (sums * size).cumsum(1), sums.cumsum(1)
    gain = product.square() * inverse(power)
    k = gain.argmax(1, keepdim=True)
    return (product * inverse(power)).gather(1, k).squeeze(1)


ENCODERS = {GgmlType.TQ1_0: tq1_0, GgmlType.TQ2_0: tq2_0, GgmlType.Q1_0: q1_0}
