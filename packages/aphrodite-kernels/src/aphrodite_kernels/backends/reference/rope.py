"""Rotary position embedding."""

import torch
from torch import Tensor


def rotate(q: Tensor, k: Tensor, positions: Tensor, table: Tensor) -> None:
    """Turn the pairs (i, i + rotary / 2) of every head by the angles of its position, in place."""
    cosines, sines = table[positions.long()].unsqueeze(2).unbind(1)  # each [T, 1, rotary / 2]
    half = table.shape[-1]
    for heads in (q, k):
        first = heads[..., :half].float()
        second = heads[..., half : 2 * half].float()
        turned = torch.cat((first * cosines - second * sines, second * cosines + first * sines), -1)
        heads[..., : 2 * half] = turned.to(heads.dtype)
