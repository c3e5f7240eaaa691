"""Sums of codebook entries: rectangles of a row, of a column, of both, and points of a lattice."""

from dataclasses import replace

import torch

from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.lattice import Lattice
from aphrodite_kernels.testing.kinds import WeightKind


def random_codebook(
    rows: int,
    columns: int,
    shape: tuple[int, int],
    sizes: tuple[int, ...],
    generator: torch.Generator,
) -> Codebook:
    """A weight of rectangles of `shape` (height, width), one codebook for each of `sizes`."""
    height, width = shape
    vectors, across = -(-rows // height), columns // width
    books = tuple(
        Book.pack(
            torch.randint(size, (vectors, across), generator=generator),
            (torch.randn(size, height, width, generator=generator) / 4).half(),
        )
        for size in sizes
    )
    scale = 0.5 + torch.rand(vectors, generator=generator)
    return Codebook(books, scale, rows)


def random_lattice(rows: int, columns: int, generator: torch.Generator) -> Codebook:
    """Two bits and one more for each weight."""
    shape = (rows, columns // 8)
    main, residual = (
        Book.pack(torch.randint(size, shape, generator=generator), lattice)
        for size, lattice in ((1 << 16, Lattice.E8P), (256, Lattice.E81B))
    )
    books = (replace(main, factor=0.2), replace(residual, factor=0.1))
    return Codebook(books, None, rows)


KINDS = (
    WeightKind(
        "codebook_wide",
        lambda rows, columns, generator: random_codebook(
            rows, columns, (1, 8), (256, 256), generator
        ),
        company=False,
    ),
    WeightKind(
        "codebook_tall",
        lambda rows, columns, generator: random_codebook(
            rows, columns, (6, 1), (1 << 12, 64), generator
        ),
        company=False,
    ),
    WeightKind(
        "codebook_long",
        lambda rows, columns, generator: random_codebook(
            rows, columns, (1, 32), (1 << 10,), generator
        ),
        company=False,
    ),
    WeightKind(
        "codebook_square",
        lambda rows, columns, generator: random_codebook(
            rows, columns, (2, 4), (16, 1 << 9, 32), generator
        ),
        company=False,
    ),
    WeightKind("codebook_lattice", random_lattice, company=False),
)
