"""Activations between two ops, in the eight bits in which a product takes them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Rounded:
    """x[t, k] = codes[t, k] * scale[t, k // depth]."""

    codes: Tensor
    """[T, K] float8_e4m3fn."""
    scale: Tensor
    """[T, ceil(K / depth)] float32."""
    depth: int
    """Columns that share a scale."""
    dtype: torch.dtype
    """Of the numbers that were rounded, and of products with them."""

    def widened(self) -> Tensor:
        """[T, K] float32: what the codes stand for."""
        scale = self.scale.repeat_interleave(self.depth, 1)[:, : self.codes.shape[1]]
        return self.codes.float() * scale


Rows = Tensor | Rounded
"""[T, K]: as they are, or rounded."""
