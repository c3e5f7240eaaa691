"""Numbers become the nearest float of a few bits: a sign, an exponent and a mantissa, no infinity.

With a bias of 2**(exponent bits - 1) - 1 and subnormal numbers, as the OCP Microscaling
specification 1.0, section 5.3, has E2M1 and E3M2; of two as near, the one with an even mantissa.
"""

from itertools import pairwise
from math import inf, nextafter

import torch
from torch import Tensor


def magnitudes(exponent_bits: int, mantissa_bits: int) -> tuple[float, ...]:
    """The numbers without a sign, rising: the place of each is its code."""
    bias, steps = (1 << exponent_bits - 1) - 1, 1 << mantissa_bits
    return tuple(
        ((exponent > 0) + mantissa / steps) * 2.0 ** (max(exponent, 1) - bias)
        for exponent in range(1 << exponent_bits)
        for mantissa in range(steps)
    )


def nearest(numbers: Tensor, sizes: tuple[float, ...]) -> Tensor:
    """Codes uint8 of the nearest of `sizes`, the sign above; what is beyond becomes the largest."""
    between = [(low + high) / 2 for low, high in pairwise(sizes)]
    bounds = [
        half if place % 2 == 0 else nextafter(half, -inf) for place, half in enumerate(between)
    ]
    edges = torch.tensor(bounds, dtype=torch.float64, device=numbers.device)
    codes = torch.bucketize(numbers.abs().double(), edges)
    return (codes + len(sizes) * ((numbers < 0) & (codes > 0))).to(torch.uint8)
