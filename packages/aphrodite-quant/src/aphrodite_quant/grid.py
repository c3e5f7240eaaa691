"""Integer codes with a scale and a zero point: which numbers they can be, and which fit best."""

from dataclasses import dataclass

import torch
from torch import Tensor

_CUT = 1 / 32


@dataclass(frozen=True, slots=True)
class Grid:
    """w = (code - zero) * scale, codes from 0 to 2**bits - 1."""

    bits: int
    symmetric: bool
    """The zero point is 2**(bits - 1)."""
    dtype: torch.dtype = torch.float16
    """Of scales on disk."""
    cuts: int = 13
    """Scales that are tried, each smaller than the one before by 1/32 of that which reaches the
    largest weight: it is cut off, and the others are rounded more finely."""

    @property
    def most(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    def fit(self, weight: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scale and zero point [..., 1] float32 of the weights [..., g] that share them.

        The one of several cuts with the least squared error, weighted by `importance` [..., g] if
        it is given. The scale is one that `dtype` can hold.
        """
        low, high = weight.amin(-1, keepdim=True).clamp(max=0), weight.amax(-1, keepdim=True)
        high = high.clamp(min=0)
        if self.symmetric:
            high = torch.maximum(-low, high)
            low = -high
        widest = (high - low) / self.most
        best = torch.full_like(widest, torch.inf)
        scale, zero = widest, widest
        for cut in range(self.cuts):
            factor = 1 - _CUT * cut
            tried = self._stored(widest * factor)
            shift = self._zero(low * factor, tried)
            error = (self.round(weight, tried, shift) - weight).square()
            error = (error if importance is None else error * importance).sum(-1, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            scale, zero = torch.where(better, tried, scale), torch.where(better, shift, zero)
        return scale, zero

    def codes(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The nearest codes, in float32."""
        return (weight / scale).round_().add_(zero).clamp_(0, self.most)

    def round(self, weight: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The nearest numbers."""
        return self.codes(weight, scale, zero).sub_(zero).mul_(scale)

    def _stored(self, scale: Tensor) -> Tensor:
        """As it comes back from the disk; 1 where all weights are 0."""
        least = torch.finfo(self.dtype).smallest_normal
        held = scale.clamp(min=least).to(self.dtype).float()
        return held.where(scale > 0, 1.0)

    def _zero(self, low: Tensor, scale: Tensor) -> Tensor:
        if self.symmetric:
            return torch.full_like(scale, float(1 << self.bits - 1))
        return (-low / scale).round().clamp(0, self.most)


@dataclass(frozen=True, eq=False, slots=True)
class Coded:
    """A weight [N, K] as codes of a grid."""

    codes: Tensor
    """[N, K] uint8, input features in their own order."""
    scale: Tensor
    """[N, G] float32."""
    zero: Tensor
    """[N, G] float32, whole numbers."""
    group_of: Tensor
    """[K] int32: the group of each input feature."""


def nearest(weight: Tensor, grid: Grid, group: int, importance: Tensor | None = None) -> Coded:
    """Each weight by itself, in groups of neighbours.

    `importance` [K] weighs the errors of input features when scales are chosen.
    """
    columns = weight.shape[1]
    parts = weight.unflatten(1, (-1, group))
    weights = None if importance is None else importance.view(1, -1, group)
    scale, zero = grid.fit(parts, weights)
    codes = grid.codes(parts, scale, zero).flatten(1).to(torch.uint8)
    groups = torch.arange(columns, dtype=torch.int32, device=weight.device) // group
    return Coded(codes, scale.squeeze(2), zero.squeeze(2), groups)
