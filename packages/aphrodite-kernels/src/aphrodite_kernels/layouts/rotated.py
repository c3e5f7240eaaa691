"""A weight between two orthonormal transforms that mix all its channels (QuIP#).

Each side is the product of a small matrix (or none) and a Hadamard transform of a power of two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.hadamard import hadamard


@dataclass(frozen=True, eq=False)
class Rotation:
    """The matrix base ⊗ H of one side, cut to the channels of the layer, which it scales."""

    scale: Tensor
    """[C] float32, one for each channel of the layer."""
    inner: int
    """Channels of the transform: C, or more, of which the others are padding."""
    base: Tensor | None
    """[b, b] float32; None: 1."""

    def __post_init__(self) -> None:
        order = 1 if self.base is None else len(self.base)
        power = self.inner // order
        if self.scale.dtype != torch.float32 or self.scale.ndim != 1:
            raise LayoutError(
                "scales of a rotation are [C] float32, not "
                f"{list(self.scale.shape)} {self.scale.dtype}"
            )
        if self.base is not None and (
            self.base.dtype != torch.float32 or tuple(self.base.shape) != (order, order)
        ):
            raise LayoutError(
                "the base of a rotation is a square of float32, not "
                f"{list(self.base.shape)} {self.base.dtype}"
            )
        if power * order != self.inner or power & (power - 1) or not power:
            raise LayoutError(f"{self.inner} channels are not {order} times a power of two")
        if len(self.scale) > self.inner:
            raise LayoutError(
                f"a rotation of {self.inner} channels is too small for {len(self.scale)}"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of scales and base."""
        return self.scale.nbytes + (0 if self.base is None else self.base.nbytes)

    def turned(self, x: Tensor) -> Tensor:
        """[R, inner] float32 to [R, C]: its columns by the matrix, then scaled."""
        if self.base is None:
            turned = hadamard(x)
        else:
            blocks = x.unflatten(1, (len(self.base), -1))
            turned = (self.base @ hadamard(blocks)).flatten(1)
        return turned[:, : len(self.scale)] * self.scale

    def turned_back(self, x: Tensor) -> Tensor:
        """[R, C] float32 to [R, inner]: by the transpose of what `turned` multiplies with."""
        padded = functional.pad(x * self.scale, (0, self.inner - len(self.scale)))
        if self.base is None:
            return hadamard(padded)
        blocks = padded.unflatten(1, (len(self.base), -1))
        return (self.base.T @ hadamard(blocks)).flatten(1)

    def to(self, device: torch.device) -> Self:
        """The same on `device`."""
        base = None if self.base is None else self.base.to(device)
        return replace(self, scale=self.scale.to(device), base=base)


@dataclass(frozen=True, eq=False)
class Rotated(PackedWeight):
    """W = diag(s) L D Rᵀ diag(t), or rows of it, of the rotations L and R with scales s and t."""

    weight: PackedWeight
    """D, between the transforms."""
    left: Rotation
    """Of output features."""
    right: Rotation
    """Of input features."""
    picked: Tensor | None = None
    """[R] int64: the rows of W that the weight consists of; None: all."""

    def __post_init__(self) -> None:
        found = (self.weight.out_features, self.weight.in_features)
        if found != (self.left.inner, self.right.inner):
            raise LayoutError(
                f"rotations of {self.left.inner} and {self.right.inner} channels do not fit a "
                f"weight {list(found)}"
            )

    @property
    def in_features(self) -> int:
        return len(self.right.scale)

    @property
    def out_features(self) -> int:
        return len(self.left.scale if self.picked is None else self.picked)

    @property
    def nbytes(self) -> int:
        picked = 0 if self.picked is None else self.picked.nbytes
        return self.weight.nbytes + self.left.nbytes + self.right.nbytes + picked

    @property
    def device(self) -> torch.device:
        return self.weight.device

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        half = self.right.turned(self.weight.dequantize())  # [inner N, K]
        dense = self.left.turned(half.T).T
        return (dense if self.picked is None else dense[self.picked]).to(dtype).contiguous()

    def rows(self, index: Tensor) -> Self:
        """All of D is kept, as the transform mixes all rows."""
        return replace(self, picked=index if self.picked is None else self.picked[index])

    def shard(self, axis: int, rank: int, size: int) -> Self:
        raise LayoutError(
            f"a rotation mixes all channels: [{self.out_features}, {self.in_features}] does not "
            f"divide into {size} parts"
        )

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        """Of rows that were picked from one weight: all of them, in that order."""
        first, *others = parts = cls.all_of(weights)
        sides = (first.weight, first.left, first.right)
        if any(
            mine is not own
            for part in others
            for mine, own in zip((part.weight, part.left, part.right), sides, strict=True)
        ):
            raise LayoutError(
                "rotated weights mix all their rows, each of them stays a product alone"
            )
        every = torch.arange(len(first.left.scale), device=first.device)
        picked = torch.cat([every if part.picked is None else part.picked for part in parts])
        return replace(first, picked=None if torch.equal(picked, every) else picked)

    def to(self, device: torch.device) -> Self:
        picked = None if self.picked is None else self.picked.to(device)
        left, right = self.left.to(device), self.right.to(device)
        return type(self)(self.weight.to(device), left, right, picked)
