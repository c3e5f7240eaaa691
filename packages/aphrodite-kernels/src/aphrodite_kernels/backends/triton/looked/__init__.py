"""Weights whose numbers are looked up, and weights that consist of others."""

from collections.abc import Mapping

from aphrodite_kernels.backends.triton.looked.frame import (
    Looked,
    looked_matmul,
    steady_looked_matmul,
)
from aphrodite_kernels.backends.triton.looked.scalars import LookedRowGroups, LookedTables
from aphrodite_kernels.backends.triton.looked.vectors import LookedVectors
from aphrodite_kernels.layouts import Lookup, PackedWeight
from aphrodite_kernels.layouts.codebook import Codebook
from aphrodite_kernels.layouts.row_grouped import RowGrouped

LOOKED: Mapping[type[PackedWeight], type[Looked]] = {
    Codebook: LookedVectors,
    Lookup: LookedTables,
    RowGrouped: LookedRowGroups,
}
"""By the layout that each is made of."""

__all__ = ["LOOKED", "looked_matmul", "pack_looked", "steady_looked_matmul"]


def pack_looked(weight: PackedWeight) -> PackedWeight:
    """The weight as a decoder reads it; one that has none stays as it is."""
    return LOOKED[type(weight)].of(weight) or weight
