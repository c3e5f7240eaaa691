"""A table for every row and outliers beside: none in some rows, one row full of them."""

import torch

from aphrodite_kernels.layouts.outlying import Entries, Outlying, Sparse
from aphrodite_kernels.testing.kinds import WeightKind
from aphrodite_kernels.testing.kinds.lookup import random_rows


def random_outlying(rows: int, columns: int, generator: torch.Generator) -> Outlying:
    """A weight a twentieth of whose elements are outliers."""
    kept = torch.rand(rows, columns, generator=generator) < 0.05
    kept[1::7], kept[2] = False, True
    row, column = kept.nonzero(as_tuple=True)
    entries = Entries(row, column, torch.randn(len(row), generator=generator))
    outliers = Sparse.of([entries], rows, columns)
    return Outlying(random_rows(rows, columns, generator), outliers)


KINDS = (WeightKind("outlying", random_outlying),)
