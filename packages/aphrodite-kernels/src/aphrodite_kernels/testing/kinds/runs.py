"""Runs of columns of different bits, out of order."""

import torch

from aphrodite_kernels.layouts.runs import Runs
from aphrodite_kernels.testing.kinds import WeightKind
from aphrodite_kernels.testing.kinds.grouped import random_grouped


def random_runs(rows: int, columns: int, generator: torch.Generator) -> Runs:
    """Runs of 8, 5 and 2 bits, the latter of most columns, scaled and shifted."""
    parts = tuple(
        random_grouped(rows, width, generator, bits=bits, group=group, zero=False, ordered=True)
        for bits, group, width in ((8, 16, 32), (5, 32, 32), (2, 32, columns - 64))
    )
    return Runs(
        parts,
        torch.randperm(columns, generator=generator),
        0.5 + torch.rand(columns, generator=generator),
        torch.randn(columns, generator=generator) / 8,
    )


KINDS = (WeightKind("runs", random_runs, company=False),)
