"""Runs of columns out of order: of different bits, and of vectors of output features."""

import torch

from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.testing.case import Rounding
from aphrodite_kernels.testing.kinds import WeightKind
from aphrodite_kernels.testing.kinds.codebook import random_codebook
from aphrodite_kernels.testing.kinds.grouped import random_grouped


def random_runs(rows: int, columns: int, generator: torch.Generator) -> Runs:
    """Runs of 8, 5 and 2 bits, the latter of most columns, scaled and shifted."""
    parts = tuple(
        random_grouped(rows, width, generator, bits=bits, group=group, zero=False, ordered=True)
        for bits, group, width in ((8, 16, 32), (5, 32, 32), (2, 32, columns - 64))
    )
    return _mixed(parts, columns, generator)


def random_vector_runs(rows: int, columns: int, generator: torch.Generator) -> Runs:
    """Outliers in vectors of four, two groups of vectors of six with residuals."""
    half = (columns - 32) // 2
    parts = (
        random_codebook(rows, 32, (4, 1), (1 << 10,), generator),
        random_codebook(rows, half, (6, 1), (1 << 12, 64), generator),
        random_codebook(rows, half, (6, 1), (1 << 12, 64), generator),
    )
    return _mixed(parts, columns, generator)


def _mixed(parts: tuple[PackedWeight, ...], columns: int, generator: torch.Generator) -> Runs:
    return Runs(
        parts,
        torch.randperm(columns, generator=generator),
        0.5 + torch.rand(columns, generator=generator),
        torch.randn(columns, generator=generator) / 8,
    )


KINDS = (
    WeightKind("runs", random_runs, Rounding.STEPS, company=False),
    WeightKind("runs_of_vectors", random_vector_runs, company=False),
)
