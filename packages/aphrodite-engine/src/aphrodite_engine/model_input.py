"""What a model computes on: one step, as tensors on the device."""

from dataclasses import dataclass

from aphrodite_kernels.attention import AttentionMeta, KVCache
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ModelInput:
    """One step on the device."""

    tokens: Tensor
    """[T] int32."""
    positions: Tensor
    """[T] int32."""
    attention: tuple[AttentionMeta, ...]
    """Per layer; layers of one KV group share the object."""
    caches: tuple[KVCache, ...]
    """Per layer."""
    wanted: Tensor | None = None
    """[R] int64: tokens whose hidden rows are asked for, in this order; None: all."""
