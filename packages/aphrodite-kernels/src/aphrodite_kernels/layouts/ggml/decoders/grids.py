"""Blocks of 256 whose codes are indices of points of a grid: of eight dimensions or of four.

The coordinates of IQ2 and IQ3 are positive and have signs of their own, eight to a byte; of seven
stored ones the eighth makes their number even. Those of IQ1 have none, but all of a run are moved
by an eighth up or down.
"""

import torch
from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import constant, half, interleaved, multiplied, words
from aphrodite_kernels.layouts.ggml.grids import grid
from aphrodite_kernels.layouts.ggml.types import GgmlType

Factors = tuple[Tensor, Tensor]
"""Scales [n, s] and coordinates [n, s, 256 / s]: a block's elements are their products."""

_EVEN = tuple(seven | (seven.bit_count() & 1) << 7 for seven in range(128))


def iq2_xxs(blocks: Tensor) -> Factors:
    """scale; per 32: four indices, then a word of four times seven signs and a 4-bit scale."""
    pairs = words(blocks, 2, 66, torch.int32)
    index = blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4].flatten(1).int()
    scales = half(blocks, 0) * (0.5 + (pairs[:, 1::2] >> 28 & 15).float()) * 0.25
    return _signed(scales, "IQ2_XXS", index, _even(pairs[:, 1::2]))


def iq2_xs(blocks: Tensor) -> Factors:
    """scale, 32 words of a 9-bit index and seven signs, 16 scales of 4 bits."""
    codes = words(blocks, 2, 66, torch.int16)
    signs = constant(_EVEN, torch.uint8, blocks.device)[codes >> 9]
    return _signed(_quarters(blocks, 66), "IQ2_XS", codes & 511, signs)


def iq2_s(blocks: Tensor) -> Factors:
    """scale, 32 low bytes of indices, 32 bytes of signs, 32 high pairs, 16 scales of 4 bits."""
    index = blocks[:, 2:34].int() | interleaved(blocks[:, 66:74], (0, 2, 4, 6), 3).int() << 8
    return _signed(_quarters(blocks, 74), "IQ2_S", index, blocks[:, 34:66])


def iq3_xxs(blocks: Tensor) -> Factors:
    """scale, 64 indices; per 32: a word of four times seven signs and a 4-bit scale."""
    word = words(blocks, 66, 98, torch.int32)
    scales = half(blocks, 0) * (0.5 + (word >> 28 & 15).float()) * 0.5
    return _signed(scales, "IQ3_XXS", blocks[:, 2:66].int(), _even(word))


def iq3_s(blocks: Tensor) -> Factors:
    """scale, 64 low bytes of indices, 64 high bits, 32 bytes of signs, 8 scales of 4 bits."""
    index = blocks[:, 2:66].int() | interleaved(blocks[:, 66:74], range(8), 1).int() << 8
    scales = half(blocks, 0) * (1 + 2 * interleaved(blocks[:, 106:110], (0, 4), 15)).float()
    return _signed(scales, "IQ3_S", index, blocks[:, 74:106])


def iq1_s(blocks: Tensor) -> Factors:
    """scale, 32 low bytes of indices; per 32: four high bits of three, a 3-bit scale, a sign."""
    high = words(blocks, 34, 50, torch.int16)
    index = blocks[:, 2:34].int() | interleaved(high, (0, 3, 6, 9), 7) << 8
    scales = half(blocks, 0) * (2 * (high >> 12 & 7) + 1).float()
    return _moved(scales, index, (high >> 15).repeat_interleave(4, 1))


def iq1_m(blocks: Tensor) -> Factors:
    """32 low bytes of indices, 32 nibbles of three high bits and a sign, 16 scales of 3 bits.

    The scale of all is in the four top nibbles of the words of scales, the lowest first.
    """
    word = words(blocks, 48, 56, torch.int16)
    top = constant((0, 4, 8, 12), torch.int32, blocks.device)
    unit = (word >> 12 << top).sum(1, keepdim=True).to(torch.int16).view(torch.float16).float()
    nibbles = interleaved(blocks[:, 32:48], (0, 4), 15).int()
    scales = unit * (2 * interleaved(word, (0, 3, 6, 9), 7) + 1).float()
    return _moved(scales, blocks[:, :32].int() | (nibbles & 7) << 8, nibbles >> 3)


def _even(word: Tensor) -> Tensor:
    """Words [n, m] -> bytes of signs [n, 4 m]."""
    sevens = interleaved(word, (0, 7, 14, 21), 127)
    return constant(_EVEN, torch.uint8, word.device)[sevens]


def _quarters(blocks: Tensor, at: int) -> Tensor:
    """Sixteen scales of 4 bits in the last bytes: a quarter of each and a half, times the scale."""
    return half(blocks, 0) * (0.5 + interleaved(blocks[:, at:], (0, 4), 15).float()) * 0.25


def _signed(scales: Tensor, name: str, index: Tensor, signs: Tensor) -> Factors:
    """Scales [n, s], and points [n, m] under signs [n, 32] uint8, a bit for each coordinate."""
    points = grid(name, index.device)[index].view(*scales.shape, -1)
    sign = 1 - 2 * interleaved(signs, range(8), 1).float()
    return scales, points * sign.view(points.shape)


def _moved(scales: Tensor, index: Tensor, down: Tensor) -> Factors:
    """Scales [n, s], and points [n, 32], each moved down (1) or up (0) by an eighth."""
    points = grid("IQ1_S", index.device)[index] + (0.125 - 0.25 * down.float()).unsqueeze(-1)
    return scales, points.view(*scales.shape, -1)


FACTORS = {
    GgmlType.IQ2_XXS: iq2_xxs,
    GgmlType.IQ2_XS: iq2_xs,
    GgmlType.IQ2_S: iq2_s,
    GgmlType.IQ3_XXS: iq3_xxs,
    GgmlType.IQ3_S: iq3_s,
    GgmlType.IQ1_S: iq1_s,
    GgmlType.IQ1_M: iq1_m,
}
DECODERS = {kind: multiplied(factors) for kind, factors in FACTORS.items()}
