"""A weight and a sparse matrix that is added to it: the outliers of SqueezeLLM (arXiv 2306.07629).

The few numbers that no table of sixteen fits are taken out of a matrix before it is quantised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight, check_division


class Entries(NamedTuple):
    """Numbers in a matrix, in any order."""

    row: Tensor
    """[Z] int64."""
    column: Tensor
    """[Z] int64."""
    value: Tensor
    """[Z] float32."""


@dataclass(frozen=True, eq=False)
class Sparse:
    """A matrix S [N, K] of few numbers, row after row (CSR)."""

    starts: Tensor
    """[N + 1] int32, ascending from 0 to Z: row n has the numbers from starts[n] to the next."""
    columns: Tensor
    """[Z] int32, below K, of each row once at most."""
    values: Tensor
    """[Z] float32."""
    width: int
    """K."""

    def __post_init__(self) -> None:
        count = self.values.numel()
        for name, tensor, dtype, length in (
            ("starts", self.starts, torch.int32, max(1, self.starts.numel())),
            ("columns", self.columns, torch.int32, count),
            ("values", self.values, torch.float32, count),
        ):
            if tensor.dtype != dtype or tuple(tensor.shape) != (length,):
                raise LayoutError(
                    f"{name} of a sparse matrix of {count} numbers are [{length}] "
                    f"{str(dtype)[6:]}, not {list(tensor.shape)} {tensor.dtype}"
                )

    @classmethod
    def of(cls, entries: Sequence[Entries], height: int, width: int) -> Self:
        """The sum of matrices; where several have a number, it is theirs together."""
        row, column, value = (torch.cat(parts) for parts in zip(*entries, strict=True))
        ordered, order = (row * width + column).sort()
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered.diff() != 0
        place, which = ordered[first], first.cumsum(0) - 1
        starts = _starts((place // width).bincount(minlength=height))
        values = value.new_zeros(len(place)).index_add_(0, which, value[order])
        return cls(starts.int(), (place % width).int(), values, width)

    @property
    def height(self) -> int:
        """N."""
        return len(self.starts) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of the three tensors."""
        return self.starts.nbytes + self.columns.nbytes + self.values.nbytes

    @cached_property
    def longest(self) -> int:
        """Numbers of the row that has most."""
        return int(self.starts.diff().max()) if self.height else 0

    def added_to(self, dense: Tensor) -> Tensor:
        """The sum with a matrix [N, K] float32."""
        place = self._row() * self.width + self.columns
        return dense.flatten().scatter_add(0, place, self.values).view_as(dense)

    def looked_up(self, index: Tensor) -> Tensor:
        """Rows `index` ([R] int64), [R, K] float32; once `longest` is known, without a wait."""
        found = torch.zeros(len(index), self.width, device=self.values.device)
        if not self.longest or not len(index):
            return found
        first, after = self.starts[index].long(), self.starts[index + 1].long()
        at = first[:, None] + torch.arange(self.longest, device=found.device)
        there = at < after[:, None]
        at = torch.where(there, at, 0)
        numbers = torch.where(there, self.values[at], 0.0)
        return found.scatter_add_(1, torch.where(there, self.columns[at], 0).long(), numbers)

    def rows(self, index: Tensor) -> Self:
        """The matrix made of rows `index`."""
        sizes = self.starts.diff()[index].long()
        starts = _starts(sizes)
        offset = self.starts[index].long() - starts[:-1]
        at = torch.arange(int(starts[-1]), device=index.device) + offset.repeat_interleave(sizes)
        return replace(self, starts=starts.int(), columns=self.columns[at], values=self.values[at])

    def between(self, first: int, after: int) -> Self:
        """Columns `first` up to `after` alone."""
        row = self._row()
        kept = (self.columns >= first) & (self.columns < after)
        return replace(
            self,
            starts=_starts(row[kept].bincount(minlength=self.height)).int(),
            columns=self.columns[kept] - first,
            values=self.values[kept],
            width=after - first,
        )

    def above(self, other: Self) -> Self:
        """This matrix with the rows of another of the same width below."""
        return replace(
            self,
            starts=torch.cat((self.starts, other.starts[1:] + len(self.values))),
            columns=torch.cat((self.columns, other.columns)),
            values=torch.cat((self.values, other.values)),
        )

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        starts, columns, values = (
            each.to(device) for each in (self.starts, self.columns, self.values)
        )
        return replace(self, starts=starts, columns=columns, values=values)

    def _row(self) -> Tensor:
        """[Z] int64: the row that each number is in, without a wait."""
        row = torch.arange(self.height, device=self.starts.device)
        sizes = self.starts.diff().long()
        return row.repeat_interleave(sizes, output_size=len(self.values))


@dataclass(frozen=True, eq=False)
class Outlying(PackedWeight):
    """W = D + S."""

    weight: PackedWeight
    """D."""
    outliers: Sparse
    """S."""

    def __post_init__(self) -> None:
        found = [self.outliers.height, self.outliers.width]
        if found != [self.out_features, self.in_features]:
            raise LayoutError(
                f"a sparse matrix {found} is not added to a weight "
                f"{[self.out_features, self.in_features]}"
            )

    @property
    def in_features(self) -> int:
        return self.weight.in_features

    @property
    def out_features(self) -> int:
        return self.weight.out_features

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes + self.outliers.nbytes

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.outliers.added_to(self.weight.dequantize()).to(dtype)

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.weight.rows(index), self.outliers.rows(index))

    def shard(self, axis: int, rank: int, size: int) -> Self:
        weight = self.weight.shard(axis, rank, size)
        check_division(self.in_features if axis == 1 else self.out_features, 1, size)
        if axis == 1:
            first = rank * weight.in_features
            return type(self)(weight, self.outliers.between(first, first + weight.in_features))
        index = torch.arange(weight.out_features, device=self.device)
        return type(self)(weight, self.outliers.rows(rank * weight.out_features + index))

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        first, *others = cls.all_of(weights)
        inner = [first.weight, *(other.weight for other in others)]
        weight, outliers = type(first.weight).stack(inner), first.outliers
        for other in others:
            outliers = outliers.above(other.outliers)
        return cls(weight, outliers)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.weight.to(device), self.outliers.to(device))


def _starts(sizes: Tensor) -> Tensor:
    """[N + 1] int64, where rows of some sizes [N] begin and the last ends."""
    return torch.cat((sizes.new_zeros(1), sizes.cumsum(0)))
