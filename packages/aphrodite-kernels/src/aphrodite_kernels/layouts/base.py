"""The contract of every packed weight.

A packed weight is a matrix W of shape [N, K] (out features, in features; y = x Wᵀ) in some
compressed arrangement. It is immutable. Only the layout knows its packing granularity, so only
the layout splits, stacks and moves itself. It knows nothing of files (a quant format builds it)
and nothing of kernels (`backend.matmul[type(weight)]` consumes it; `backend.pack` may re-tile it
into a layout of that backend's own).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError


def check_division(extent: int, unit: int, size: int) -> None:
    """LayoutError unless `extent` is `size` parts of whole units."""
    if extent % (size * unit):
        raise LayoutError(
            f"a dimension of {extent} in groups of {unit} does not divide into {size} parts"
        )


def share(tensor: Tensor, axis: int, rank: int, size: int) -> Tensor:
    """Part `rank` of `size` equal ones along an axis, in memory of its own."""
    length = tensor.shape[axis] // size
    return tensor.narrow(axis, rank * length, length).contiguous()


@dataclass(frozen=True, eq=False)
class PackedWeight(ABC):
    """A matrix W [N, K] in some packed arrangement."""

    @property
    @abstractmethod
    def in_features(self) -> int:
        """K."""

    @property
    @abstractmethod
    def out_features(self) -> int:
        """N."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes that the packed tensors occupy."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the packed tensors lie."""

    @abstractmethod
    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dense matrix [N, K], computed in float32 and rounded once to `dtype`."""

    @abstractmethod
    def rows(self, index: Tensor) -> Self:
        """The weight made of rows `index` ([R] int64): an embedding look-up, a permutation."""

    @abstractmethod
    def shard(self, axis: int, rank: int, size: int) -> Self:
        """Part `rank` of `size` along N (axis 0) or K (1); LayoutError if a group would split."""

    @classmethod
    @abstractmethod
    def stack(cls, weights: Sequence["PackedWeight"]) -> Self:
        """The weights one below the other along N; LayoutError if layout or parameters differ."""

    @classmethod
    def all_of(cls, weights: Sequence["PackedWeight"]) -> list[Self]:
        """The weights, if all of them are of this layout; LayoutError otherwise."""
        same = [weight for weight in weights if isinstance(weight, cls)]
        if not weights or len(same) != len(weights):
            found = sorted({type(weight).__name__ for weight in weights})
            raise LayoutError(f"stacking {cls.__name__} needs weights of that layout, not {found}")
        return same

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """The same weight on `device`."""

    def cropped(self, rows: int, columns: int) -> "PackedWeight":
        """The weight [rows, columns], if what this one has beyond only pads it to whole blocks."""
        found = [self.out_features, self.in_features]
        raise LayoutError(f"a weight {found} is not one of {[rows, columns]} with padding")
