"""Trellis-coded weights of every codebook, at widths that a ring of bits wraps differently."""

from itertools import product

import torch

from aphrodite_kernels.layouts.trellis import TRELLIS_BLOCK, Trellis, TrellisCodebook
from aphrodite_kernels.testing.kinds import WeightKind

RATES = (
    *product(range(1, 9), TrellisCodebook),
    *((bits, TrellisCodebook.MUL1) for bits in (1.5, 2.5, 3.5)),
)
"""All bits of a weight that there are, with each codebook that has them."""


def random_trellis(
    rows: int, columns: int, bits: float, codebook: TrellisCodebook, generator: torch.Generator
) -> Trellis:
    """A weight of random bits; rows that do not fill a block are picked from whole ones."""
    full = -(-rows // TRELLIS_BLOCK) * TRELLIS_BLOCK
    shape = (columns // 16, full // 16, int(16 * bits))
    trellis = torch.randint(-(1 << 15), 1 << 15, shape, generator=generator).short()
    suh, svh = (
        (0.2 + 0.2 * torch.rand(size, generator=generator)).half()
        * (torch.randint(2, (size,), generator=generator) * 2 - 1)
        for size in (columns, full)
    )
    weight = Trellis(trellis, suh, svh, codebook)
    return weight if rows == full else weight.rows(torch.arange(rows))


def _kind(bits: float, codebook: TrellisCodebook, *widths: int) -> WeightKind:
    return WeightKind(
        f"trellis_{codebook}_{bits}",
        lambda rows, columns, generator: random_trellis(rows, columns, bits, codebook, generator),
        widths=widths,
        company=bits == 4,
    )


KINDS = (
    _kind(2, TrellisCodebook.INST3, 640),
    _kind(3, TrellisCodebook.MCG, 128),
    _kind(4, TrellisCodebook.MUL1, 128, 640),
    _kind(2.5, TrellisCodebook.MUL1, 384),
)
