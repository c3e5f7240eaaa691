"""Codes of a few bits whose scales are shared by rows that lie apart."""

import torch

from aphrodite_kernels.layouts.grouped import pack_codes
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from aphrodite_kernels.testing.kinds import WeightKind


def random_row_grouped(
    rows: int, columns: int, bits: int, generator: torch.Generator
) -> RowGrouped:
    """A weight of random codes whose elements are about 1 or smaller, in three groups of rows."""
    codes = torch.randint(1 << bits, (rows, columns), generator=generator).to(torch.uint8)
    scale = (0.5 + torch.rand(3, columns, generator=generator)) / (1 << bits)
    zero = torch.rand(3, columns, generator=generator) * ((1 << bits) - 1)
    return RowGrouped(pack_codes(codes, bits), scale, zero, torch.arange(rows) % 3, bits)


def _kind(bits: int) -> WeightKind:
    return WeightKind(
        f"row_grouped_{bits}bit",
        lambda rows, columns, generator: random_row_grouped(rows, columns, bits, generator),
        company=False,
    )


KINDS = (_kind(3), _kind(4))
"""Two widths of codes; the rest is unpacked as in other grouped weights."""
