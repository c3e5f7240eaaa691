# pyright: basic
"""A paged cache as kernels get it: what is stored, and how far apart its parts lie."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from aphrodite_kernels.attention import KVCache
from aphrodite_kernels.errors import ShapeError


class Stored(NamedTuple):
    """A cache: tensors, in a kernel pointers, and in a specimen Triton's types of them."""

    key: Any
    value: Any
    key_scale: Any
    """None of a cache that has none."""
    value_scale: Any


class Strides(NamedTuple):
    """Of a cache's dimensions, in numbers. The scales of all heads lie side by side."""

    block: Any
    slot: Any
    head: Any
    scale_block: Any
    scale_slot: Any


KINDS = {
    torch.bfloat16: "*bf16",
    torch.int8: "*i8",
    torch.uint8: "*u8",
    torch.float8_e4m3fn: "*fp8e4nv",
    torch.float8_e5m2: "*fp8e5",
}
ALIGNED = (*(f"cache.{place}" for place in range(4)), *(f"strides.{place}" for place in range(4)))
"""What is divisible by 16."""


def stored(cache: KVCache) -> Stored:
    """The argument `cache` of a kernel."""
    return Stored(cache.key, cache.value, cache.key_scale, cache.value_scale)


def strides_of(cache: KVCache) -> Strides:
    """Its argument `strides`. ShapeError unless keys and values lie alike."""
    if cache.key.stride() != cache.value.stride():
        raise ShapeError(
            f"keys with strides {cache.key.stride()} and values with strides "
            f"{cache.value.stride()}: both must lie alike"
        )
    scale = cache.key_scale
    return Strides(*cache.key.stride()[:3], *((0, 0) if scale is None else scale.stride()[:2]))


def types_of(dtype: torch.dtype) -> dict[str, tuple[str, ...]]:
    """Triton's types of both, for a specimen."""
    kind, scale = KINDS[dtype], "constexpr" if dtype.itemsize > 1 else "*fp32"
    return {"cache": Stored(kind, kind, scale, scale), "strides": Strides(*["i32"] * 5)}


@triton.jit
def place_of(block, inside, strides):
    """How far behind the first the vector of a position `inside` a block lies."""
    return block.to(tl.int64) * strides.block + inside * strides.slot


@triton.jit
def scale_place_of(block, inside, strides):
    """The same of its scale."""
    return block.to(tl.int64) * strides.scale_block + inside * strides.scale_slot
