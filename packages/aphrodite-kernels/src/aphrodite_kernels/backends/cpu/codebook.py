"""Sums of codebook entries, looked up as they are multiplied: csrc/cpu/codebook.h.

Codes stay where the canonical layout has them; tables are copied, with room to read behind them.
"""

from ctypes import Structure, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from aphrodite_kernels.backends.cpu.numbers import number_of
from aphrodite_kernels.backends.cpu.product import Operand, ProductArguments, product_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.backends.cpu.tensors import address
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.lattice import Lattice, lattice_points
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import MatMul

_MOST_BOOKS = 8
_BEHIND = 16
"""Numbers that kernels may read behind a table."""


class BookArgument(Structure):
    """A codebook as the compiled library takes it."""

    _fields_ = (
        ("codes", c_void_p),
        ("entries", c_void_p),
        ("code_bytes", c_int64),
        ("factor", c_float),
    )


class CodebookArgument(Structure):
    """A weight as the compiled library takes it."""

    _fields_ = (
        ("books", BookArgument * _MOST_BOOKS),
        ("scale", c_void_p),
        ("count", c_int64),
        ("across", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("outputs", c_int64),
        ("number", c_int32),
    )


@dataclass(frozen=True, eq=False)
class Vectors(Sourced):
    """`source`, whose rows are in order, and its tables and scales as kernels read them."""

    source: Codebook
    tables: tuple[Tensor, ...]
    """Of each book: [E * height * width + _BEHIND], of one floating dtype."""
    scale: Tensor | None
    """[V] float32."""

    @property
    def nbytes(self) -> int:
        books = zip(self.source.books, self.tables, strict=True)
        own = sum(t.nbytes for book, t in books if not isinstance(book.entries, Lattice))
        codes = sum(book.codes.nbytes for book in self.source.books)
        return codes + own + (0 if self.scale is None else self.scale.nbytes)

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight, if its rectangles are in order and its books no more than kernels take."""
        if not isinstance(source, Codebook) or len(source.books) > _MOST_BOOKS:
            return None
        if source.place is not None and source.height > 1:
            return None
        books = tuple(replace(book, codes=book.codes.contiguous()) for book in source.books)
        dtypes = {book.table.dtype for book in books}
        dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
        scale = None if source.scale is None else source.scale.float().contiguous()
        tables = tuple(_table(book, dtype) for book in books)
        return cls(replace(source, books=books, place=None), tables, scale)

    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that kernels read."""
        scale = () if self.scale is None else (self.scale,)
        return (*(book.codes for book in self.source.books), *self.tables, *scale)

    def argument(self) -> CodebookArgument:
        """The weight for the library."""
        source = self.source
        books = (
            BookArgument(book.codes.data_ptr(), table.data_ptr(), book.codes.itemsize, book.factor)
            for book, table in zip(source.books, self.tables, strict=True)
        )
        return CodebookArgument(
            books=(BookArgument * _MOST_BOOKS)(*books),
            scale=address(self.scale),
            count=len(source.books),
            across=source.books[0].codes.shape[1],
            height=source.height,
            width=source.width,
            outputs=source.count,
            number=number_of("a codebook", self.tables[0].dtype),
        )


def _table(book: Book, dtype: torch.dtype) -> Tensor:
    if isinstance(book.entries, Lattice):
        return _points(book.entries, dtype)
    return functional.pad(book.entries.flatten().to(dtype), (0, _BEHIND))


@cache
def _points(lattice: Lattice, dtype: torch.dtype) -> Tensor:
    points = lattice_points(lattice, torch.device("cpu"))
    return functional.pad(points.flatten().to(dtype), (0, _BEHIND))


class CodebookMatmulArguments(ProductArguments):
    """Of csrc/cpu/ops/floats/codebook_matmul.cpp."""

    _fields_ = (("weight", CodebookArgument),)


def codebook_matmul_on(runtime: Runtime) -> MatMul:
    """The product with sums of entries, in float32, for any number of rows."""
    return product_on(runtime, "codebook_matmul", CodebookMatmulArguments, _operand_of)


def _operand_of(weight: PackedWeight) -> Operand:
    assert isinstance(weight, Vectors), f"bound to {type(weight).__name__}"
    return Operand(weight.parts(), {"weight": weight.argument()})
