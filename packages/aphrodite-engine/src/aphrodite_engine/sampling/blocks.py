"""Searches in rows of a vocabulary, a block of tokens at a time.

Torch's own topk and cumsum walk a row number by number; a vectorised reduction over blocks
leaves them a few hundred numbers. On one core at 49k tokens: the largest 256 in 70 us instead of
144, keep in 36 us instead of 207.

Every function treats a row by itself, so that its result is the same in any company.
"""

import torch
from torch import Tensor
from torch.nn import functional

_BLOCK = 256
_STRIDE = 4096
_HUGE = 3e38


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


def _pad(x: Tensor, multiple: int, value: float) -> Tensor:
    missing = -x.shape[1] % multiple
    return functional.pad(x, (0, missing), value=value) if missing else x
