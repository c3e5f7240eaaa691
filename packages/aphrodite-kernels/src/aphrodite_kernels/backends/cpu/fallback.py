"""Ops on layouts without a compiled kernel: the reference, made to fit into programs."""

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.backends.reference.matmul import embed_as, matmul
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.protocols import Embed, MatMul


def any_matmul_on(runtime: Runtime) -> MatMul:
    """The product with a weight of any layout."""

    def any_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        shape = (len(x), weight.out_features)
        return runtime.island(lambda rows: matmul(x[:rows], weight, bias), shape)

    return any_matmul


def any_embed_on(runtime: Runtime) -> Embed:
    """The look-up in a weight of any layout."""
    look_up = embed_as(torch.float32)

    def any_embed(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        shape = (len(tokens), weight.in_features)
        return runtime.island(lambda rows: look_up(tokens[:rows], weight, scale), shape)

    return any_embed
