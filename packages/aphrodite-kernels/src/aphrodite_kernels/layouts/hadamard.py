"""The orthonormal Hadamard transform, as Sylvester's matrices have it."""

import math
from functools import cache

import torch
from torch import Tensor

_AT_ONCE = 128


@cache
def sylvester(size: int, device: torch.device) -> Tensor:
    """The matrix [size, size] float32, symmetric and its own inverse; size is a power of two."""
    matrix = torch.ones(1, 1, device=device)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)


def hadamard(x: Tensor) -> Tensor:
    """The transform of the last dimension of x (float32), a power of two."""
    size = x.shape[-1]
    if size <= _AT_ONCE:
        return x @ sylvester(size, x.device)
    inner = x.unflatten(-1, (-1, _AT_ONCE)) @ sylvester(_AT_ONCE, x.device)
    return hadamard(inner.mT).mT.flatten(-2)
