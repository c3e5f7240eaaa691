# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false
"""Sums of codebook entries: AQLM, VPTQ, and the lattices of QuIP#."""

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Self

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.looked.entries import RUN
from aphrodite_kernels.backends.triton.looked.frame import Looked, looked_specimens
from aphrodite_kernels.backends.triton.looked.lanes import lanes_for, lanes_product, lanes_specimen
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.codebook import Book, Codebook
from aphrodite_kernels.layouts.lattice import Lattice, lattice_words

_MOST_STACKS = 2


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """The rectangles, and one or two stacks of books of a kind each."""

    height: int
    width: int
    scaled: bool
    counts: tuple[int, int]
    """Books of each stack; the second may have none."""
    entries: tuple[int, int]
    """Of a book; 0: the points of E8P, which are made of words."""
    factors: tuple[float, float]

    @property
    def units(self) -> tuple[float, float]:
        """What `lanes.py` multiplies the sums of each stack by."""
        first, second = (
            factor if entries else factor / 4
            for factor, entries in zip(self.factors, self.entries, strict=True)
        )
        return first, second

    @property
    def by_lanes(self) -> bool:
        """Whether entries are eight inputs of an output."""
        return (self.height, self.width) == (1, RUN)

    @property
    def padded(self) -> int:
        """The power of two from the height on."""
        return 1 << (self.height - 1).bit_length()


@triton.jit
def table_entries(codes, table, at, there, P: tl.constexpr, W: tl.constexpr):
    """Of each code [V, A] its entry [V, A, P, W]."""
    code = tl.load(codes + at, there, 0).to(tl.int32) & 0xFFFF
    h = tl.arange(0, P)[None, None, :, None]
    w = tl.arange(0, W)[None, None, None, :]
    place = code[:, :, None, None] * (P * W) + (h * W + w)
    return tl.load(table + place).to(tl.float32)


@triton.jit
def lattice_entries(codes, words, at, there):
    """Of each code [V, A] the point of E8P [V, A, 1, 8]: fields of `lattice_words`."""
    code = tl.load(codes + at, there, 0).to(tl.int32) & 0xFFFF
    word = tl.load(words + (code >> 8)) ^ tl.load(words + 256 + (code & 0xFF))
    j = tl.arange(0, 8)[None, None, None, :]
    field = (word[:, :, None, None] >> ((j // 2 + j % 2 * 4) * 4)) & 15
    return field.to(tl.float32) * 0.5 - 3.75


@triton.jit
def stack_entries(
    codes, table, at, there, size, COUNT: tl.constexpr, ENTRIES: tl.constexpr, P: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """The sum of the entries of a stack's books, whose codes are `size` apart."""
    if ENTRIES == 0:
        total = lattice_entries(codes, table, at, there)
    else:
        total = table_entries(codes, table, at, there, P, W)
        for book in tl.static_range(1, COUNT):
            entries = table + book * (ENTRIES * P * W)
            total += table_entries(codes + book * size, entries, at, there, P, W)
    return total


@triton.jit
def decode_vectors(parts, v, a, SPEC: tl.constexpr):
    """A decoder. parts: vectors, across, scales, then codes and table of each stack.

    Entries have `padded` rows.
    """
    P: tl.constexpr = SPEC.padded
    W: tl.constexpr = SPEC.width
    vectors, across = parts[0], parts[1]
    at = v[:, None] * across + a[None, :]
    there = (v < vectors)[:, None] & (a < across)[None, :]
    size = vectors * across
    total = stack_entries(
        parts[3], parts[4], at, there, size, SPEC.counts[0], SPEC.entries[0], P, W
    )
    if SPEC.factors[0] != 1.0:
        total = total * SPEC.factors[0]
    if SPEC.counts[1] > 0:
        more = stack_entries(
            parts[5], parts[6], at, there, size, SPEC.counts[1], SPEC.entries[1], P, W
        )
        total += more * SPEC.factors[1]
    if SPEC.scaled:
        scale = tl.load(parts[2] + v, v < vectors, 0.0).to(tl.float32)
        total = total * scale[:, None, None, None]
    if P > 1:
        total = tl.permute(total, (0, 2, 1, 3))
    return tl.reshape(total, (v.shape[0] * P, a.shape[0] * W))


@dataclass(frozen=True, eq=False)
class LookedVectors(Looked):
    """Codes, and tables of float numbers or words of E8P, of each stack in one tensor."""

    source: Codebook
    kind: VectorSpec

    @property
    def decoder(self) -> Any:
        return decode_vectors

    @property
    def spec(self) -> VectorSpec:
        return self.kind

    def few_rows(self, x: Tensor, bias: Tensor | None) -> Tensor:
        lanes = lanes_for(len(x), self.kind.entries) if self.kind.by_lanes else None
        if lanes is None or x.dtype == torch.float32:
            return super().few_rows(x, bias)
        return lanes_product(x, self, bias, lanes)

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight, if its rectangles are in order, and its books of two kinds at most."""
        if not isinstance(source, Codebook) or source.width & (source.width - 1):
            return None
        if source.place is not None and source.height > 1:
            return None
        stacks = [list(stack) for _, stack in groupby(source.books, _kind)]
        if len(stacks) > _MOST_STACKS:
            return None
        counts, entries, factors = [0, 0], [0, 0], [1.0, 1.0]
        books: list[Book] = []
        tensors: list[Tensor] = []
        for i, stack in enumerate(stacks):
            codes = torch.stack([book.codes for book in stack])
            lattice = stack[0].entries == Lattice.E8P
            counts[i], factors[i] = len(stack), stack[0].factor
            entries[i] = 0 if lattice else len(stack[0].table)
            books += [replace(b, codes=codes[j]) for j, b in enumerate(stack)]
            tensors += [codes, lattice_words(source.device) if lattice else _tables(stack)]
        scale = source.scale if source.scale is not None else tensors[0]
        kind = VectorSpec(
            source.height,
            source.width,
            source.scale is not None,
            (counts[0], counts[1]),
            (entries[0], entries[1]),
            (factors[0], factors[1]),
        )
        vectors, across = source.books[0].codes.shape
        kept = replace(source, books=tuple(books), place=None)
        return cls(kept, (vectors, across, scale, *tensors), None, kind)


def _tables(stack: list[Book]) -> Tensor:
    """The entries [books, E, padded, width] of a stack of one kind."""
    table = torch.stack([book.table for book in stack])
    missing = (1 << (table.shape[2] - 1).bit_length()) - table.shape[2]
    return torch.nn.functional.pad(table, (0, 0, 0, missing)).contiguous()


def _kind(book: Book) -> tuple[object, ...]:
    """What books of one stack have in common."""
    if book.entries == Lattice.E8P:  # each is computed alone
        return (id(book),)
    return (book.table.shape, book.table.dtype, book.codes.dtype, book.factor)


_STACK = ("*i16", "*fp16")
_SPECS: tuple[tuple[VectorSpec, tuple[str, ...]], ...] = (
    (
        VectorSpec(1, 8, scaled=True, counts=(1, 0), entries=(1 << 16, 0), factors=(1.0, 1.0)),
        _STACK,
    ),
    (
        VectorSpec(1, 8, scaled=True, counts=(2, 0), entries=(256, 0), factors=(1.0, 1.0)),
        ("*u8", "*fp16"),
    ),
    (
        VectorSpec(8, 1, scaled=False, counts=(1, 1), entries=(1 << 16, 256), factors=(1.0, 1.0)),
        (*_STACK, "*u8", "*fp16"),
    ),
    (
        VectorSpec(6, 1, scaled=False, counts=(1, 0), entries=(1 << 12, 0), factors=(1.0, 1.0)),
        _STACK,
    ),
    (
        VectorSpec(1, 8, scaled=True, counts=(1, 0), entries=(0, 0), factors=(1.0, 1.0)),
        ("*i16", "*i32"),
    ),
    (
        VectorSpec(1, 8, scaled=True, counts=(1, 1), entries=(0, 256), factors=(1.0, 0.5)),
        ("*i16", "*i32", "*u8", "*fp16"),
    ),
)

_BESIDE = ("i32", "i32", "*fp16")
SPECIMENS = (
    *(
        specimen
        for spec, types in _SPECS
        for specimen in looked_specimens(decode_vectors, spec, (*_BESIDE, *types))
    ),
    *(
        lanes_specimen(_SPECS[place][0], (*_BESIDE, *_SPECS[place][1]), rows)
        for place, rows in ((0, 1), (1, 8), (4, 1))
    ),
)
