"""Small rectangles of weights as sums of codebook entries: AQLM, VPTQ, the lattices of QuIP#.

A rectangle is `height` output features by `width` input features; each codebook has a code for
every rectangle. A weight may be rows out of such rectangles (`place`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight, check_division, share
from aphrodite_kernels.layouts.lattice import Lattice, lattice_points

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_ENTRIES = {torch.uint8: 1 << 8, torch.int16: 1 << 16}
_DECODED_AT_ONCE = 1 << 21


@dataclass(frozen=True, eq=False)
class Book:
    """A codebook and the codes into it; each entry is multiplied by `factor`."""

    codes: Tensor
    """[V, K / width] uint8, or int16 whose bits are an unsigned number; all below `len(table)`."""
    entries: Tensor | Lattice
    """[E, height, width] of a floating dtype, or the points of a lattice."""
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.codes.dtype not in _ENTRIES or self.codes.ndim != 2:
            raise LayoutError(
                "codes into a codebook are a matrix of uint8 or int16, not "
                f"{self.codes.dtype} of {self.codes.ndim} dimensions"
            )
        table = self.table
        if table.ndim != 3 or table.dtype not in _FLOATS or not table.numel():
            raise LayoutError(
                "a codebook is [E, height, width] floating numbers, not "
                f"{list(table.shape)} {table.dtype}"
            )
        if len(table) > _ENTRIES[self.codes.dtype]:
            raise LayoutError(f"codes of {self.codes.dtype} do not reach {len(table)} entries")

    @classmethod
    def pack(cls, codes: Tensor, entries: Tensor | Lattice) -> Self:
        """From codes [V, K / width] of a wider integer dtype, all below E."""
        found = cls(torch.zeros(0, 0, dtype=torch.int16, device=codes.device), entries)
        size, largest = len(found.table), int(codes.max()) if codes.numel() else 0
        if largest >= size:
            raise LayoutError(f"code {largest} names none of {size} entries")
        if size <= _ENTRIES[torch.uint8]:
            return cls(codes.to(torch.uint8), entries)
        signed = torch.where(codes < 1 << 15, codes, codes - (1 << 16))
        return cls(signed.to(torch.int16), entries)

    @property
    def table(self) -> Tensor:
        """[E, height, width]."""
        if isinstance(self.entries, Lattice):
            return lattice_points(self.entries, self.codes.device)
        return self.entries

    @property
    def nbytes(self) -> int:
        """Bytes of codes and entries; those of a lattice are nobody's own."""
        return self.codes.nbytes + (0 if isinstance(self.entries, Lattice) else self.entries.nbytes)

    def decoded(self, vectors: slice) -> Tensor:
        """The entries [v, K / width, height, width] float32 that codes of some vectors name."""
        codes = self.codes[vectors].int() & (_ENTRIES[self.codes.dtype] - 1)
        return self.table[codes].float() * self.factor

    def shares_entries(self, other: Self) -> bool:
        """Whether both have the same numbers for the same codes."""
        mine, theirs = self.table, other.table
        same = mine is theirs or (mine.dtype == theirs.dtype and torch.equal(mine, theirs))
        return same and (self.factor, self.codes.dtype) == (other.factor, other.codes.dtype)


@dataclass(frozen=True, eq=False)
class Codebook(PackedWeight):
    """W[n, k] = scale[v] * sum over books of entry[code[v, k // width]][n % height, k % width].

    Rectangle v is n // height.
    """

    books: tuple[Book, ...]
    """One or more, of rectangles of one size."""
    scale: Tensor | None
    """[V] of a floating dtype; None: all are 1."""
    count: int
    """N: rows of the last rectangles beyond it are padding."""
    place: Tensor | None = None
    """[V] int64: of each rectangle the one row that is row v of W; None: all rows, in order."""

    def __post_init__(self) -> None:
        if not self.books:
            raise LayoutError("a weight of codebooks needs one at least")
        shapes = {(tuple(b.codes.shape), tuple(b.table.shape[1:])) for b in self.books}
        if len(shapes) != 1:
            raise LayoutError(f"codebooks of one weight are of one shape, not {sorted(shapes)}")
        vectors = len(self.books[0].codes)
        needed = self.count if self.place is not None else -(-self.count // self.height)
        if vectors != needed or self.count < 0:
            raise LayoutError(
                f"{self.count} rows in rectangles of {self.height} need {needed} of them, not "
                f"{vectors}"
            )
        scale, place = self.scale, self.place
        if scale is not None and (scale.dtype not in _FLOATS or tuple(scale.shape) != (vectors,)):
            raise LayoutError(
                f"the scales of {vectors} rectangles are [{vectors}] floating numbers, not "
                f"{list(scale.shape)} {scale.dtype}"
            )
        if place is not None and (place.dtype != torch.int64 or tuple(place.shape) != (vectors,)):
            raise LayoutError(
                f"the places of {vectors} rows are [{vectors}] int64, not {list(place.shape)} "
                f"{place.dtype}"
            )

    @property
    def height(self) -> int:
        """Output features of a rectangle."""
        return self.books[0].table.shape[1]

    @property
    def width(self) -> int:
        """Input features of a rectangle."""
        return self.books[0].table.shape[2]

    @property
    def in_features(self) -> int:
        return self.books[0].codes.shape[1] * self.width

    @property
    def out_features(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        beside = sum(tensor.nbytes for tensor in (self.scale, self.place) if tensor is not None)
        return sum(book.nbytes for book in self.books) + beside

    @property
    def device(self) -> torch.device:
        return self.books[0].codes.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense matrix; only a few rows of it are ever wider than `dtype`."""
        dense = torch.empty(self.count, self.in_features, dtype=dtype, device=self.device)
        start = 0
        for rows in self._decoded():
            kept = rows[: self.count - start]
            dense[start : start + len(kept)] = kept
            start += len(kept)
        return dense

    def rows(self, index: Tensor) -> Self:
        step = self.height if self.place is None else 1
        vector = index // step
        place = index % step if self.place is None else self.place[index]
        books = tuple(replace(book, codes=book.codes[vector]) for book in self.books)
        scale = None if self.scale is None else self.scale[vector]
        return replace(self, books=books, scale=scale, count=len(index), place=place)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        if axis == 1:
            check_division(self.in_features, self.width, size)
            books = tuple(
                replace(book, codes=share(book.codes, 1, rank, size)) for book in self.books
            )
            return replace(self, books=books)
        check_division(self.count, self.height if self.place is None else 1, size)
        return replace(
            self,
            books=tuple(
                replace(book, codes=share(book.codes, 0, rank, size)) for book in self.books
            ),
            scale=None if self.scale is None else share(self.scale, 0, rank, size),
            count=self.count // size,
            place=None if self.place is None else share(self.place, 0, rank, size),
        )

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        first = parts[0]
        for above, below in pairwise(parts):
            if (
                above.in_features != below.in_features
                or len(above.books) != len(below.books)
                or (above.scale is None) != (below.scale is None)
                or not all(map(Book.shares_entries, above.books, below.books))
            ):
                raise LayoutError("cannot stack weights of different codebooks, width or scales")
        if any(part.place is not None or part.count % part.height for part in parts):
            parts = [part._placed() for part in parts]
        books = tuple(
            replace(book, codes=torch.cat([part.books[i].codes for part in parts]))
            for i, book in enumerate(first.books)
        )
        scales = [part.scale for part in parts if part.scale is not None]
        places = [part.place for part in parts if part.place is not None]
        return cls(
            books,
            torch.cat(scales) if scales else None,
            sum(part.count for part in parts),
            torch.cat(places) if places else None,
        )

    def to(self, device: torch.device) -> Self:
        def moved(book: Book) -> Book:
            entries = book.entries
            entries = entries if isinstance(entries, Lattice) else entries.to(device)
            return replace(book, codes=book.codes.to(device), entries=entries)

        return replace(
            self,
            books=tuple(map(moved, self.books)),
            scale=None if self.scale is None else self.scale.to(device),
            place=None if self.place is None else self.place.to(device),
        )

    def _placed(self) -> Self:
        if self.place is not None:
            return self
        return self.rows(torch.arange(self.count, device=self.device))

    def _decoded(self) -> Iterator[Tensor]:
        """W in float32 from its first row to its last, padding included, so many at a time."""
        vectors = len(self.books[0].codes)
        step = max(1, _DECODED_AT_ONCE // (self.height * self.in_features))
        for start in range(0, vectors, step):
            chosen = slice(start, min(start + step, vectors))
            wide = sum(
                (book.decoded(chosen) for book in self.books[1:]), self.books[0].decoded(chosen)
            )
            if self.scale is not None:
                wide = wide * self.scale[chosen].float()[:, None, None, None]
            if self.place is not None:
                row = torch.arange(chosen.stop - start, device=self.device)
                yield wide[row, :, self.place[chosen]].flatten(1)
            else:
                yield wide.transpose(1, 2).reshape(-1, self.in_features)
