"""Points of a lattice between transforms, one side padded, the other with an odd factor."""

import torch

from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from aphrodite_kernels.testing.kinds import WeightKind
from aphrodite_kernels.testing.kinds.codebook import random_lattice


def random_rotated(rows: int, columns: int, generator: torch.Generator) -> Rotated:
    """A weight whose elements are about 1 or smaller."""
    height = 1 << (rows - 1).bit_length()
    odd = columns // (columns & -columns)
    base = _orthonormal(odd, generator) if odd > 1 else None
    left = Rotation(0.5 + torch.rand(rows, generator=generator), height, None)
    right = Rotation(0.5 + torch.rand(columns, generator=generator), columns, base)
    return Rotated(random_lattice(height, columns, generator), left, right)


def _orthonormal(size: int, generator: torch.Generator) -> torch.Tensor:
    """Two reflections after each other, so that no matrix is its own transpose."""
    mirrors = torch.randn(2, size, 1, generator=generator)
    first, second = torch.eye(size) - 2 * mirrors @ mirrors.mT / mirrors.square().sum(
        1, keepdim=True
    )
    return first @ second


KINDS = (WeightKind("rotated", random_rotated, company=False),)
