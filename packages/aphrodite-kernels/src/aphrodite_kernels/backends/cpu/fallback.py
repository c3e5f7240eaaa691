"""Ops on layouts without a compiled kernel: the reference, made to fit into programs.

A product dequantises a slab of rows at a time, so that a weight never lies in memory unpacked.
"""

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.backends.reference.matmul import embed_as, matmul
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import Embed, MatMul

_SLAB = 1 << 20
"""Weights dequantised at a time: 4 MiB, which stay in the processor's cache."""
_LEAST = 128
"""Rows are taken in multiples of this many, which some layouts decode together."""


def any_matmul_on(runtime: Runtime) -> MatMul:
    """The product with a weight of any layout."""

    def any_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        shape = (len(x), weight.out_features)
        return runtime.island(lambda rows: _by_slabs(x[:rows], weight, bias), shape)

    return any_matmul


def any_embed_on(runtime: Runtime) -> Embed:
    """The look-up in a weight of any layout."""
    look_up = embed_as(torch.float32)

    def any_embed(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        shape = (len(tokens), weight.in_features)
        return runtime.island(lambda rows: look_up(tokens[:rows], weight, scale), shape)

    return any_embed


def sourced_rows_on(runtime: Runtime) -> Embed:
    """The look-up of rows in the source, without a kernel."""
    look_up = any_embed_on(runtime)

    def sourced_rows(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Sourced), f"bound to {type(weight).__name__}"
        return look_up(tokens, weight.source, scale)

    return sourced_rows


def _by_slabs(x: Tensor, weight: PackedWeight, bias: Tensor | None) -> Tensor:
    if isinstance(weight, Rotated):
        return _rotated(x, weight, bias)
    result = torch.empty(len(x), weight.out_features)
    height = max(1, _SLAB // max(1, _LEAST * weight.in_features)) * _LEAST
    for first in range(0, weight.out_features, height):
        rows = torch.arange(first, min(first + height, weight.out_features))
        slab = slice(first, first + len(rows))
        part = None if bias is None else bias[slab]
        result[:, slab] = matmul(x, weight.rows(rows), part)
    return result


def _rotated(x: Tensor, weight: Rotated, bias: Tensor | None) -> Tensor:
    """Activations are turned in the place of the weight, any row of which takes all of it."""
    between = _by_slabs(weight.right.turned_back(x.float()), weight.weight, None)
    product = weight.left.turned(between)
    if weight.picked is not None:
        product = product[:, weight.picked]
    return product if bias is None else product + bias
