# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false
"""Keys and values of a step to their slots: a program writes those of one token, all heads.

Floor: k and v once in, once out, over the copy bandwidth; for few tokens the latency of a launch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.attention import KVCache
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError
from aphrodite_kernels.protocols import StoreKV

_LARGEST = {torch.int8: 127, torch.float8_e4m3fn: 448, torch.float8_e5m2: 57344}
"""The largest number of each quantised dtype."""
_NEAREST = tl.constexpr(12582912.0)
"""1.5 * 2^23: added to a small float32 and taken off again, it leaves the nearest integer."""


@triton.jit
def _store(value, stored, scales, place, scale_place, there, heads, LARGEST: tl.constexpr):
    """One token's vectors [BLOCK_HEADS, BLOCK]; LARGEST: quantised, else 0."""
    kind: tl.constexpr = stored.dtype.element_ty
    if LARGEST:
        value = value.to(tl.float32)
        scale = tl.math.div_rn(tl.max(tl.abs(value), 1, keep_dims=True), LARGEST)
        scale = tl.where(scale > 0, scale, 1.0)
        tl.store(scales + scale_place, scale, heads)
        value = tl.math.div_rn(value, tl.broadcast_to(scale, value.shape))
        if kind == tl.int8:
            value = value + _NEAREST - _NEAREST
    tl.store(stored + place, value.to(kind), there)


@triton.jit(do_not_specialize=["slots"])
def store_kv_kernel(
    k,
    v,
    slots,
    key,
    value,
    key_scale,
    value_scale,
    k_stride,
    k_head_stride,
    v_stride,
    v_head_stride,
    block_stride,
    slot_stride,
    head_stride,
    scale_block_stride,
    scale_slot_stride,
    BLOCK_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    LARGEST: tl.constexpr,
    PDL: tl.constexpr,
):
    """k, v [T, HEADS, SIZE] to slots [T] of key, value [blocks, BLOCK_SIZE, HEADS, SIZE]."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    block, inside = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    heads = head < HEADS
    there = heads & (column < SIZE)
    place = block * block_stride + inside * slot_stride + head * head_stride + column
    scale_place = block * scale_block_stride + inside * scale_slot_stride + head
    new_k = tl.load(k + token * k_stride + head * k_head_stride + column, there, 0.0)
    new_v = tl.load(v + token * v_stride + head * v_head_stride + column, there, 0.0)
    _store(new_k, key, key_scale, place, scale_place, there, heads, LARGEST)
    _store(new_v, value, value_scale, place, scale_place, there, heads, LARGEST)


def store_kv_on(*, overlapped: bool) -> StoreKV:
    """Implements protocols.StoreKV."""

    def store_kv(k: Tensor, v: Tensor, cache: KVCache, slots: Tensor) -> None:
        tokens, heads, size = k.shape
        key, scale = cache.key, cache.key_scale
        check_strides(cache)
        store_kv_kernel[(tokens,)](
            k,
            v,
            slots,
            key,
            cache.value,
            scale,
            cache.value_scale,
            k.stride(0),
            k.stride(1),
            v.stride(0),
            v.stride(1),
            key.stride(0),
            key.stride(1),
            key.stride(2),
            0 if scale is None else scale.stride(0),
            0 if scale is None else scale.stride(1),
            BLOCK_SIZE=cache.block_size,
            HEADS=heads,
            SIZE=size,
            BLOCK_HEADS=triton.next_power_of_2(heads),
            BLOCK=triton.next_power_of_2(size),
            LARGEST=0 if scale is None else _LARGEST[key.dtype],
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )

    return store_kv


def check_strides(cache: KVCache) -> None:
    """ShapeError unless keys and values lie alike, and so do their scales."""
    if cache.key.stride() != cache.value.stride():
        raise ShapeError(
            f"keys with strides {cache.key.stride()} and values with strides "
            f"{cache.value.stride()}: both must lie alike"
        )


def _specimen(kind: str, largest: int) -> Specimen:
    pointers = {
        **dict.fromkeys(("k", "v"), "*bf16"),
        "slots": "*i64",
        **dict.fromkeys(("key", "value"), kind),
        **dict.fromkeys(("key_scale", "value_scale"), "*fp32"),
    }
    strides = (
        "k_stride",
        "k_head_stride",
        "v_stride",
        "v_head_stride",
        "block_stride",
        "slot_stride",
        "head_stride",
        "scale_block_stride",
        "scale_slot_stride",
    )
    constants: dict[str, object] = {
        "BLOCK_SIZE": 16,
        "HEADS": 8,
        "SIZE": 128,
        "BLOCK_HEADS": 8,
        "BLOCK": 128,
        "LARGEST": largest,
        "PDL": False,
    }
    types = {**pointers, **dict.fromkeys(strides, "i32")}
    capabilities = (90,) if kind == "*fp8e4nv" else (80, 90)
    aligned = (*pointers, *strides[:-1])
    return Specimen(store_kv_kernel, types, constants, aligned=aligned, capabilities=capabilities)


SPECIMENS = (
    _specimen("*bf16", 0),
    _specimen("*i8", 127),
    _specimen("*fp8e5", 57344),
    _specimen("*fp8e4nv", 448),
)
