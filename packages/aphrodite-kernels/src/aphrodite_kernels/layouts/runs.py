"""Runs of columns, each packed in a way of its own: mixed bits (EXL2), groups of vectors (VPTQ).

A model of 3 bits on average stays one of 3 bits: runs keep their own width, where one layout of the
widest would take up to 8 bits for each weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight


@dataclass(frozen=True, eq=False)
class Runs(PackedWeight):
    """W[:, columns[j]] = (column j of the runs side by side) * scale[columns[j]] + shift."""

    parts: tuple[PackedWeight, ...]
    """Runs of columns, all of N rows."""
    columns: Tensor | None = None
    """[K] int64: the input feature that each stored column is for; None: in order."""
    scale: Tensor | None = None
    """[K] float32, one for each input feature; None: all are 1."""
    shift: Tensor | None = None
    """[K] float32, added last; None: all are 0."""
    row_block: int = 1
    """Rows may be filled up to a multiple of this."""

    def __post_init__(self) -> None:
        if len({part.out_features for part in self.parts}) != 1:
            heights = [part.out_features for part in self.parts]
            raise LayoutError(f"runs of columns are one or more of equal height, not {heights}")
        width = self.in_features
        for name, tensor, dtype in (
            ("columns", self.columns, torch.int64),
            ("scale", self.scale, torch.float32),
            ("shift", self.shift, torch.float32),
        ):
            if tensor is not None and (tensor.dtype != dtype or tuple(tensor.shape) != (width,)):
                raise LayoutError(
                    f"{name} of runs of {width} columns are [{width}] {str(dtype)[6:]}, not "
                    f"{list(tensor.shape)} {tensor.dtype}"
                )

    @property
    def in_features(self) -> int:
        return sum(part.in_features for part in self.parts)

    @property
    def out_features(self) -> int:
        return self.parts[0].out_features

    @property
    def nbytes(self) -> int:
        beside = (self.columns, self.scale, self.shift)
        return sum(part.nbytes for part in self.parts) + sum(
            tensor.nbytes for tensor in beside if tensor is not None
        )

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        plain = self.scale is None and self.shift is None
        kept = dtype if plain else torch.float32
        return self.arranged(torch.cat([part.dequantize(kept) for part in self.parts], 1)).to(dtype)

    def arranged(self, dense: Tensor) -> Tensor:
        """Rows of the runs side by side as rows of W: in order, scaled and shifted."""
        if self.columns is not None:
            ordered = torch.empty_like(dense)
            ordered[:, self.columns] = dense
            dense = ordered
        if self.scale is not None:
            dense = dense * self.scale
        if self.shift is not None:
            dense = dense + self.shift
        return dense

    def rows(self, index: Tensor) -> Self:
        return self._each(lambda part: part.rows(index))

    def shard(self, axis: int, rank: int, size: int) -> Self:
        if axis == 1:
            raise LayoutError("runs of columns packed in different ways have no equal parts")
        return self._each(lambda part: part.shard(0, rank, size))

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        wholes = cls.all_of(weights)
        for above, below in pairwise(wholes):
            if [part.in_features for part in above.parts] != [
                part.in_features for part in below.parts
            ]:
                raise LayoutError("cannot stack runs of columns of different widths")
            for name in ("columns", "scale", "shift"):
                mine: Tensor | None = getattr(above, name)
                theirs: Tensor | None = getattr(below, name)
                if (mine is None) != (theirs is None) or (
                    mine is not None and theirs is not None and not torch.equal(mine, theirs)
                ):
                    raise LayoutError(f"cannot stack runs of columns whose {name} differ")
        first = wholes[0]
        stacked: list[PackedWeight] = []
        for index, part in enumerate(first.parts):
            stacked.append(type(part).stack([whole.parts[index] for whole in wholes]))
        return replace(first, parts=tuple(stacked))

    def cropped(self, rows: int, columns: int) -> PackedWeight:
        filled = -(-rows // self.row_block) * self.row_block
        if (filled, columns) != (self.out_features, self.in_features):
            return super().cropped(rows, columns)
        return replace(self.rows(torch.arange(rows, device=self.device)), row_block=1)

    def to(self, device: torch.device) -> Self:
        moved = self._each(lambda part: part.to(device))
        beside = (self.columns, self.scale, self.shift)
        columns, scale, shift = (None if each is None else each.to(device) for each in beside)
        return replace(moved, columns=columns, scale=scale, shift=shift)

    def _each(self, change: Callable[[PackedWeight], PackedWeight]) -> Self:
        return replace(self, parts=tuple(map(change, self.parts)))
