# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false
"""Keys and values of a step to their slots, and the rotation of keys on the way, and of queries.

A program takes one token, all heads. Floor: q, k and v once in, once out, over the copy bandwidth;
for few tokens the latency of a launch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.attention import KVCache
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError
from aphrodite_kernels.protocols import RotateAndStore

_LARGEST = {torch.int8: 127, torch.float8_e4m3fn: 448, torch.float8_e5m2: 57344}
"""The largest number of each quantised dtype."""
_WARPS = 8
_NEAREST = tl.constexpr(12582912.0)
"""1.5 * 2^23: added to a small float32 and taken off again, it leaves the nearest integer."""


@triton.jit
def _store(value, stored, scales, place, scale_place, there, heads, fixed, LARGEST: tl.constexpr):
    """One token's vectors [BLOCK_KV_HEADS, BLOCK]; LARGEST: quantised, else 0.

    fixed: the scale of all of them; 0: each has its own.
    """
    kind: tl.constexpr = stored.dtype.element_ty
    if LARGEST:
        value = value.to(tl.float32)
        scale = tl.math.div_rn(tl.max(tl.abs(value), 1, keep_dims=True), LARGEST)
        scale = tl.where(fixed > 0, fixed, tl.where(scale > 0, scale, 1.0))
        tl.store(scales + scale_place, scale, heads)
        value = tl.math.div_rn(value, tl.broadcast_to(scale, value.shape))
        within = tl.minimum(tl.maximum(value, -LARGEST), LARGEST)
        value = tl.where(fixed > 0, within, value)
        if kind == tl.int8:
            value = value + _NEAREST - _NEAREST
    tl.store(stored + place, value.to(kind), there)


@triton.jit
def _turn(place, there, cosine, sine, HALF: tl.constexpr):
    """In place: the pairs (i, i + HALF) at `place`."""
    first = tl.load(place, there, 0.0).to(tl.float32)
    second = tl.load(place + HALF, there, 0.0).to(tl.float32)
    kind = place.dtype.element_ty
    tl.store(place, (first * cosine - second * sine).to(kind), there)
    tl.store(place + HALF, (second * cosine + first * sine).to(kind), there)


@triton.jit
def _turned(vectors, column, heads, angles, SIZE: tl.constexpr, HALF: tl.constexpr):
    """Whole vectors [BLOCK_KV_HEADS, BLOCK] after rotation: each number with its pair's other."""
    kind = vectors.dtype.element_ty
    value = tl.load(vectors + column, heads & (column < SIZE), 0.0).to(tl.float32)
    first = column < HALF
    paired = column < 2 * HALF
    angle = angles + tl.where(first, column, column - HALF)
    cosine = tl.load(angle, paired, 1.0)
    sine = tl.load(angle + HALF, paired, 0.0)
    other = vectors + tl.where(first, column + HALF, column - HALF)
    other = tl.load(other, heads & paired, 0.0).to(tl.float32)
    return (value * cosine + tl.where(first, -other, other) * sine).to(kind)


@triton.jit(do_not_specialize=["positions", "slots"])
def rotate_and_store_kernel(
    q,
    k,
    v,
    positions,
    table,
    slots,
    key,
    value,
    key_scale,
    value_scale,
    q_stride,
    q_head_stride,
    k_stride,
    k_head_stride,
    v_stride,
    v_head_stride,
    block_stride,
    slot_stride,
    head_stride,
    scale_block_stride,
    scale_slot_stride,
    key_fixed,
    value_fixed,
    BLOCK_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KV_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    LARGEST: tl.constexpr,
    PDL: tl.constexpr,
):
    """q [T, HEADS, SIZE] in place; k, v [T, KV_HEADS, SIZE] to slots [T] of key, value [blocks,
    BLOCK_SIZE, KV_HEADS, SIZE]; table [positions, 2, HALF].
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    angles = table + tl.load(positions + token).to(tl.int64) * (2 * HALF)

    column = tl.arange(0, BLOCK_HALF)[None, :]
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    cosine = tl.load(angles + column, column < HALF, 0.0)
    sine = tl.load(angles + HALF + column, column < HALF, 0.0)
    place = q + token * q_stride + head * q_head_stride + column
    _turn(place, (head < HEADS) & (column < HALF), cosine, sine, HALF)

    column = tl.arange(0, BLOCK)[None, :]
    head = tl.arange(0, BLOCK_KV_HEADS)[:, None]
    heads = head < KV_HEADS
    there = heads & (column < SIZE)
    vectors = k + token * k_stride + head * k_head_stride
    new_k = _turned(vectors, column, heads, angles, SIZE, HALF)
    new_v = tl.load(v + token * v_stride + head * v_head_stride + column, there, 0.0)
    block, inside = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    place = block * block_stride + inside * slot_stride + head * head_stride + column
    scale_place = block * scale_block_stride + inside * scale_slot_stride + head
    _store(new_k, key, key_scale, place, scale_place, there, heads, key_fixed, LARGEST)
    _store(new_v, value, value_scale, place, scale_place, there, heads, value_fixed, LARGEST)


def rotate_and_store_on(*, overlapped: bool) -> RotateAndStore:
    """Implements protocols.RotateAndStore."""

    def rotate_and_store(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor,
        table: Tensor,
        cache: KVCache,
        slots: Tensor,
    ) -> None:
        tokens, pairs, size = k.shape
        heads, half = q.shape[1], table.shape[2]
        key, scale = cache.key, cache.key_scale
        check_strides(cache)
        rotate_and_store_kernel[(tokens,)](
            q,
            k,
            v,
            positions,
            table,
            slots,
            key,
            cache.value,
            scale,
            cache.value_scale,
            *q.stride()[:2],
            *k.stride()[:2],
            *v.stride()[:2],
            *key.stride()[:3],
            *((0, 0) if scale is None else scale.stride()[:2]),
            cache.key_fixed or 0.0,
            cache.value_fixed or 0.0,
            BLOCK_SIZE=cache.block_size,
            HEADS=heads,
            KV_HEADS=pairs,
            SIZE=size,
            HALF=half,
            BLOCK_HEADS=triton.next_power_of_2(heads),
            BLOCK_KV_HEADS=triton.next_power_of_2(pairs),
            BLOCK=triton.next_power_of_2(size),
            BLOCK_HALF=triton.next_power_of_2(half),
            LARGEST=0 if scale is None else _LARGEST[key.dtype],
            PDL=overlapped,
            num_warps=_WARPS,
            launch_pdl=overlapped,
        )

    return rotate_and_store


def check_strides(cache: KVCache) -> None:
    """ShapeError unless keys and values lie alike, and so do their scales."""
    if cache.key.stride() != cache.value.stride():
        raise ShapeError(
            f"keys with strides {cache.key.stride()} and values with strides "
            f"{cache.value.stride()}: both must lie alike"
        )


_STRIDES = (
    "q_stride",
    "q_head_stride",
    "k_stride",
    "k_head_stride",
    "v_stride",
    "v_head_stride",
    "block_stride",
    "slot_stride",
    "head_stride",
    "scale_block_stride",
)


def _specimen(
    kind: str, largest: int, heads: tuple[int, int, int] = (32, 8, 128), half: int = 64
) -> Specimen:
    queries, pairs, size = heads
    quantized = dict.fromkeys(("key_scale", "value_scale"), "*fp32") if largest else {}
    aligned = {
        **dict.fromkeys(("q", "k", "v"), "*bf16"),
        "table": "*fp32",
        **dict.fromkeys(("key", "value"), kind),
        **quantized,
        **dict.fromkeys(_STRIDES, "i32"),
    }
    numbers = dict.fromkeys(("key_fixed", "value_fixed"), "fp32")
    constants: dict[str, object] = {
        "BLOCK_SIZE": 16,
        "HEADS": queries,
        "KV_HEADS": pairs,
        "SIZE": size,
        "HALF": half,
        "BLOCK_HEADS": triton.next_power_of_2(queries),
        "BLOCK_KV_HEADS": triton.next_power_of_2(pairs),
        "BLOCK": triton.next_power_of_2(size),
        "BLOCK_HALF": triton.next_power_of_2(half),
        "LARGEST": largest,
        "PDL": False,
    }
    return Specimen(
        rotate_and_store_kernel,
        {**aligned, **numbers, "positions": "*i32", "slots": "*i64", "scale_slot_stride": "i32"},
        constants,
        _WARPS,
        aligned=tuple(aligned),
        capabilities=(90,) if kind == "*fp8e4nv" else (80, 90),
    )


SPECIMENS = (
    _specimen("*bf16", 0),
    _specimen("*bf16", 0, (64, 8, 128)),
    _specimen("*bf16", 0, (9, 3, 64), 16),
    _specimen("*i8", 127),
    _specimen("*fp8e5", 57344),
    _specimen("*fp8e4nv", 448),
)
