"""Points of the lattice E8 that codes stand for (QuIP#, Tseng and others 2024, section 4.2).

E8P: the high eight bits of a code choose one of 256 vectors of absolute values, half integers: 227
of squared norm 10 at most whose sum is even for some signs, in lexicographic order, and 29 of norm
12. Bits of the low eight choose signs, so that the sum is even; where an odd number of them is set,
the lowest is taken as flipped and a quarter is taken away from every number, else it is added.
E81B: 240 points of norm 2, the origin and 15 of norm 4.
"""

from enum import StrEnum
from functools import cache

import torch
from torch import Tensor

_SIZE = 8
_SIGN_BITS = (7, 5, 6, 4, 3, 1, 2, 0)
"""Of each number of a vector: the bit of a code that negates it."""
_NORM_12 = (
    "31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133"
    " 33133311 33133131 33131331 33133113 33131313 33131133 31333311 31333131 31331331 31333113"
    " 31331313 13331133 13333311 13333131 13331331 13333113 13331313 11331333 33113331"
)
"""Twice the vectors of norm 12 that complete the 256, in the order of their codes."""


class Lattice(StrEnum):
    """Which points."""

    E8P = "E8P"
    """65 536, two bits for each of eight numbers."""
    E81B = "E81B"
    """256, one bit for each of eight numbers."""


@cache
def lattice_points(lattice: Lattice, device: torch.device) -> Tensor:
    """[E, 1, 8] float16, exact, in the order of their codes."""
    points = _two_bits() if lattice == Lattice.E8P else _one_bit()
    return points.half().unsqueeze(1).to(device)


@cache
def lattice_words(device: torch.device) -> Tensor:
    """[2, 256] int32: words of the high half of a code of E8P, and of the low half.

    Both together, by exclusive or, are eight fields of four bits; w in one of them is the number
    w / 2 - 15 / 4. The fields are of numbers 0, 2, 4, 6, then 1, 3, 5, 7, from the lowest bits up:
    a number's size is 8 + 2 * (absolute value - 1 / 2) + 1, a sign flips the three high bits, and
    where a quarter is taken away instead of added, the lowest.
    """
    sizes, code = _absolute(), torch.arange(1 << _SIZE)
    high = 8 + 2 * (sizes - 0.5).long() + 1
    high[:, -1] ^= 14 * (sizes.sum(1) % 2).long()
    negative, odd = _signs(code)
    low = 14 * negative ^ odd[:, None]
    places = 4 * torch.tensor([number // 2 + number % 2 * 4 for number in range(_SIZE)])
    words = (torch.stack((high, low)) << places).sum(2)
    return torch.where(words < 1 << 31, words, words - (1 << 32)).int().to(device)


def _two_bits() -> Tensor:
    sizes = _absolute()  # [256, 8]
    negative, odd = _signs(torch.arange(1 << _SIZE))
    vectors = sizes[:, None] * (1 - 2 * negative)[None]
    # The last number also makes the sum even.
    vectors[..., -1] *= (1 - 2 * (sizes.sum(1) % 2))[:, None]
    return (vectors + 0.25 - 0.5 * odd[None, :, None]).flatten(0, 1)


def _signs(code: Tensor) -> tuple[Tensor, Tensor]:
    """Of low halves [n] whether each number is negative [n, 8], and whether odd bits are set."""
    signs = code[:, None] >> torch.arange(_SIZE) & 1
    odd = signs.sum(1) % 2
    signs[:, 0] ^= odd
    return signs[:, list(_SIGN_BITS)], odd


def _absolute() -> Tensor:
    """The 256 vectors of absolute values, float32."""
    grid = torch.cartesian_prod(*[torch.tensor([0.5, 1.5, 2.5])] * _SIZE)
    small = grid[grid.square().sum(1) <= 10]
    large = torch.tensor([[int(digit) / 2 for digit in vector] for vector in _NORM_12.split()])
    return torch.cat((small, large))


def _one_bit() -> Tensor:
    whole = torch.cartesian_prod(*[torch.arange(-1.0, 2.0)] * _SIZE)
    halves = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * _SIZE)
    points = torch.cat((whole, halves))
    kept = (points.sum(1) % 2 == 0) & (points.square().sum(1) <= 2)
    axes = 2 * torch.eye(_SIZE)
    return torch.cat((points[kept], axes, -axes[:-1]))
