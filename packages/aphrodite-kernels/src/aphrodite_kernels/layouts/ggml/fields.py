"""Reading fields out of a batch of blocks [n, bytes]: half floats, nibbles, bit planes."""

from collections.abc import Sequence

import torch
from torch import Tensor


def half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block -> [n, 1] float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def signed(blocks: Tensor, start: int, stop: int) -> Tensor:
    """Bytes start:stop as int8 -> [n, stop - start] float32."""
    return blocks[:, start:stop].contiguous().view(torch.int8).float()


def planes(data: Tensor, shifts: Sequence[int], mask: int) -> Tensor:
    """Fields of bytes [..., m] -> [..., len(shifts), m]: first all of the lowest bits, then up."""
    shift = torch.tensor(shifts, dtype=torch.uint8, device=data.device)
    return data.unsqueeze(-2) >> shift[:, None] & mask


def interleaved(data: Tensor, shifts: Sequence[int], mask: int) -> Tensor:
    """Fields of bytes [..., m] -> [..., m * len(shifts)]: all of the first byte, then the next."""
    return planes(data, shifts, mask).transpose(-1, -2).flatten(-2)
