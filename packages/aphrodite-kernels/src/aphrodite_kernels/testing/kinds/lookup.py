"""Codes into tables: one for all rows with scales, or one for each row; of four or six bits."""

import torch

from aphrodite_kernels.layouts import Lookup
from aphrodite_kernels.testing.kinds import WeightKind


def _shared(rows: int, columns: int, generator: torch.Generator) -> Lookup:
    table = torch.randn(1, 16, generator=generator) / 2
    scale = torch.rand(rows, columns // 32, generator=generator)
    return Lookup(_codes(rows, columns, generator), table, scale, 32)


def random_rows(rows: int, columns: int, generator: torch.Generator) -> Lookup:
    """A table for every row, without scales."""
    table = torch.randn(rows, 16, generator=generator) / 4
    return Lookup(_codes(rows, columns, generator), table, None, columns)


def _six_bits(rows: int, columns: int, generator: torch.Generator) -> Lookup:
    codes = torch.randint(256, (rows, columns * 3 // 4), generator=generator).to(torch.uint8)
    table = torch.randn(1, 64, generator=generator) / 2
    return Lookup(codes, table, torch.rand(rows, 1, generator=generator), columns)


def _codes(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(256, (rows, columns // 2), generator=generator).to(torch.uint8)


KINDS = (
    WeightKind("lookup_shared", _shared),
    WeightKind("lookup_by_row", random_rows),
    WeightKind("lookup_six_bits", _six_bits, company=False),
)
