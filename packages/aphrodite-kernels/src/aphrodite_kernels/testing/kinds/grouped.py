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


def _kind(bits: int, *, group: int = _GROUP, zero: bool, ordered: bool = True) -> WeightKind:
    size = "" if group == _GROUP else f"_by_{group}"
    label = f"grouped_{bits}bit{size}{'_zero' if zero else ''}{'' if ordered else '_reordered'}"
    return WeightKind(
        label,
        lambda rows, columns, generator: random_grouped(
            rows, columns, generator, bits=bits, group=group, zero=zero, ordered=ordered
        ),
        rounding=Rounding.STEPS,
        widths=(96, 576) if group <= _GROUP else (128, 640),
        company=bits == 4,
    )


def _kinds() -> Iterator[WeightKind]:
    for bits in range(1, 9):
        yield _kind(bits, zero=False)
        yield _kind(bits, zero=True)
    for group in (16, 128):
        for zero in (False, True):
            yield _kind(4, group=group, zero=zero)
    yield _kind(8, group=16, zero=True)
    yield _kind(4, zero=True, ordered=False)


KINDS = tuple(_kinds())
