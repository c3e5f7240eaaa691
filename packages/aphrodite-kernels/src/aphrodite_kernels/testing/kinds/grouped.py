"""Codes of a few bits in groups: with and without zero points, in and out of order."""

from collections.abc import Iterator

import torch

from aphrodite_kernels.layouts import Grouped
from aphrodite_kernels.testing.case import Rounding
from aphrodite_kernels.testing.kinds import WeightKind

_GROUP = 32


def random_grouped(
    rows: int,
    columns: int,
    generator: torch.Generator,
    *,
    bits: int,
    group: int = _GROUP,
    zero: bool,
    ordered: bool,
) -> Grouped:
    """A weight of random codes whose elements are about 1 or smaller."""
    codes = torch.randint(1 << bits, (rows, columns), generator=generator).to(torch.uint8)
    shape = (rows, columns // group)
    scale = (0.5 + torch.rand(shape, generator=generator)) / (1 << bits)
    points = torch.rand(shape, generator=generator) * ((1 << bits) - 1) if zero else None
    order = None if ordered else torch.randperm(columns, generator=generator)
    return Grouped.pack(codes, scale, points, bits, group, order)


def _kind(bits: int, *, zero: bool, ordered: bool) -> WeightKind:
    label = f"grouped_{bits}bit{'_zero' if zero else ''}{'' if ordered else '_reordered'}"
    return WeightKind(
        label,
        lambda rows, columns, generator: random_grouped(
            rows, columns, generator, bits=bits, zero=zero, ordered=ordered
        ),
        rounding=Rounding.STEPS,
        company=False,
    )


def _kinds() -> Iterator[WeightKind]:
    for bits in (2, 3, 4, 8):
        yield _kind(bits, zero=False, ordered=True)
        yield _kind(bits, zero=True, ordered=True)
    yield _kind(4, zero=True, ordered=False)


KINDS = tuple(_kinds())
