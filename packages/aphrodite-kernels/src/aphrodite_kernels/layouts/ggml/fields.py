"""Reading fields out of a batch of blocks [n, bytes]: half floats, nibbles, bit planes."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Values on a device, sent there once: a device that records its work takes none from the host.

    Never written to.
    """
    return torch.tensor(values, dtype=dtype, device=device)


def half(blocks: Tensor, at: int) -> Tensor:
    """The float16 at byte `at` of each block -> [n, 1] float32."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def signed(blocks: Tensor, start: int, stop: int) -> Tensor:
    """Bytes start:stop as int8 -> [n, stop - start] float32."""
    return blocks[:, start:stop].contiguous().view(torch.int8).float()


def words(blocks: Tensor, start: int, stop: int, dtype: torch.dtype) -> Tensor:
    """Bytes start:stop as little-endian int16 or int32 -> [n, words] int32, of int16 unsigned."""
    data = blocks[:, start:stop].clone(memory_format=torch.contiguous_format).view(dtype)
    return data.int() & 0xFFFF if dtype == torch.int16 else data


def planes(data: Tensor, shifts: Sequence[int], mask: int) -> Tensor:
    """Fields of integers [..., m] -> [..., len(shifts), m]: all of the lowest bits, then up."""
    shift = constant(tuple(shifts), data.dtype, data.device)
    return data.unsqueeze(-2) >> shift[:, None] & mask


def interleaved(data: Tensor, shifts: Sequence[int], mask: int) -> Tensor:
    """Fields of integers [..., m] -> [..., m * len(shifts)]: all of the first, then the next."""
    return planes(data, shifts, mask).transpose(-1, -2).flatten(-2)


def multiplied(factors: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], Tensor]:
    """The decoder of a type from its factors: scales [n, s] and numbers [n, s, columns of each]."""

    def decode(blocks: Tensor) -> Tensor:
        scales, numbers = factors(blocks)
        return (scales.unsqueeze(-1) * numbers).flatten(1)

    return decode
