"""Products with a weight, rows of a weight, rows of a matrix.

A weight is dequantised anew on each call.
"""

import torch
from torch import Tensor

from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.protocols import Embed
from aphrodite_kernels.rounded import Rounded


def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """The product x Wᵀ (+ bias) for any layout."""
    product = x.float() @ weight.dequantize(torch.float32).T
    if bias is not None:
        product = product + bias.float()
    return product.to(x.dtype)


def rounded_matmul(x: Rounded, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """The product with what the eight bits stand for."""
    return matmul(x.widened(), weight, bias).to(x.dtype)


def embed_as(dtype: torch.dtype) -> Embed:
    """The look-up that answers in `dtype`, for any layout."""

    def embed(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        return (weight.rows(tokens.long()).dequantize(torch.float32) * scale).to(dtype)

    return embed


def select(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index` of x."""
    return x[index]
