# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""Keys and values of a step to their slots, and the rotation of keys on the way, and of queries.

Values in the cache are finite, so that those whose weight is 0 add nothing to a sum, whoever left
them there: a vector that has others gets zeros for them, and a key of NaN, which whoever may see it
notices.

A program takes one token, all heads. Floor: q, k and v once in, once out, over the copy bandwidth;
for few tokens the latency of a launch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.attention import KVCache, mixed_size
from aphrodite_kernels.backends.triton.paged import (
    ALIGNED,
    place_of,
    scale_place_of,
    stored,
    strides_of,
    types_of,
)
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import RotateAndStore

_LARGEST = {torch.uint8: 8, torch.int8: 127, torch.float8_e4m3fn: 448, torch.float8_e5m2: 57344}
"""The largest magnitude of each quantised dtype; -8 has it of four bits."""
_WARPS = 8
_NEAREST = tl.constexpr(12582912.0)
"""1.5 * 2^23: added to a small float32 and taken off again, it leaves the nearest integer."""


@triton.jit
def _scale_of(value, FOUR: tl.constexpr, LARGEST: tl.constexpr):
    """What makes the largest number of each vector LARGEST, or -LARGEST of FOUR bits."""
    if FOUR:
        high, low = tl.max(value, 1, keep_dims=True), tl.min(value, 1, keep_dims=True)
        scale = tl.math.div_rn(tl.where(high >= -low, high, low), -LARGEST)
    else:
        scale = tl.math.div_rn(tl.max(tl.abs(value), 1, keep_dims=True), LARGEST)
    return tl.where(scale != 0, scale, 1.0)


@triton.jit
def _store(
    value, stored, scales, scale_place, heads, fixed, SIZE: tl.constexpr, LARGEST: tl.constexpr
):
    """One token's vectors [BLOCK_KV_HEADS, BLOCK] to `stored` [BLOCK_KV_HEADS, 1].

    LARGEST: quantised, else 0. fixed: the scale of all of them; 0: each has its own.
    """
    kind: tl.constexpr = stored.dtype.element_ty
    FOUR: tl.constexpr = kind == tl.uint8
    BLOCK: tl.constexpr = value.shape[1]
    if LARGEST:
        value = value.to(tl.float32)
        scale = tl.where(fixed > 0, fixed, _scale_of(value, FOUR, LARGEST))
        tl.store(scales + scale_place, scale, heads)
        value = tl.math.div_rn(value, tl.broadcast_to(scale, value.shape))
        within = tl.minimum(tl.maximum(value, -LARGEST), LARGEST - 1 if FOUR else LARGEST)
        value = within if FOUR else tl.where(fixed > 0, within, value)
        if kind == tl.int8 or FOUR:
            value = value + _NEAREST - _NEAREST
    if FOUR:
        codes = (value + LARGEST).to(tl.uint8).reshape((value.shape[0], BLOCK // 2, 2))
        low, high = tl.split(codes)
        value = low | high << 4
    column = tl.arange(0, value.shape[1])[None, :]
    there = heads & (column < ((SIZE + 1) // 2 if FOUR else SIZE))
    tl.store(stored + column, value.to(kind), there)


@triton.jit
def _mixed(vectors, MIXES: tl.constexpr):
    """Each 2^MIXES neighbours by the orthonormal Hadamard transform: a sum and a difference of two
    halves, MIXES times.
    """
    HEADS: tl.constexpr = vectors.shape[0]
    BLOCK: tl.constexpr = vectors.shape[1]
    x = vectors.to(tl.float32)
    first = (tl.arange(0, 2) == 0)[None, None, :, None]
    for mix in tl.static_range(MIXES):
        pairs = x.reshape((HEADS, BLOCK >> mix + 1, 2, 1 << mix))
        total = tl.sum(pairs, 2, keep_dims=True)
        difference = tl.sum(tl.where(first, pairs, -pairs), 2, keep_dims=True)
        x = tl.where(first, total, difference).reshape((HEADS, BLOCK))
    return (x * 2 ** (-MIXES / 2)).to(vectors.dtype)


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
    q_strides,
    k_strides,
    v_strides,
    cache,
    strides,
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
    MIXES: tl.constexpr,
    PDL: tl.constexpr,
):
    """q [T, HEADS, SIZE] in place; k, v [T, KV_HEADS, SIZE] to slots [T] of key, value [blocks,
    BLOCK_SIZE, KV_HEADS, SIZE]; table [positions, 2, HALF]. MIXES: as `_mixed`, of q and k.
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token)
    angles = table + tl.load(positions + token).to(tl.int64) * (2 * HALF)

    head = tl.arange(0, BLOCK_HEADS)[:, None]
    heads = head < HEADS
    vectors = q + token * q_strides[0] + head * q_strides[1]
    if MIXES:
        column = tl.arange(0, BLOCK)[None, :]
        new_q = _mixed(_turned(vectors, column, heads, angles, SIZE, HALF), MIXES)
        tl.debug_barrier()  # all are read before one is written
        tl.store(vectors + column, new_q, heads & (column < SIZE))
    else:
        column = tl.arange(0, BLOCK_HALF)[None, :]
        cosine = tl.load(angles + column, column < HALF, 0.0)
        sine = tl.load(angles + HALF + column, column < HALF, 0.0)
        _turn(vectors + column, heads & (column < HALF), cosine, sine, HALF)

    column = tl.arange(0, BLOCK)[None, :]
    head = tl.arange(0, BLOCK_KV_HEADS)[:, None]
    heads = head < KV_HEADS
    vectors = k + token * k_strides[0] + head * k_strides[1]
    new_k = _turned(vectors, column, heads, angles, SIZE, HALF)
    if MIXES:
        new_k = _mixed(new_k, MIXES)
    there = heads & (column < SIZE)
    new_v = tl.load(v + token * v_strides[0] + head * v_strides[1] + column, there, 0.0)
    infinite = (tl.abs(new_v) < float("inf")) == 0
    new_v = tl.where(infinite, 0.0, new_v)
    new_k = tl.where(tl.max(infinite.to(tl.int32), 1, keep_dims=True) > 0, float("nan"), new_k)
    block, inside = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    place = place_of(block, inside, strides) + head * strides.head
    scale_place = scale_place_of(block, inside, strides) + head
    key, value = cache.key + place, cache.value + place
    _store(new_k, key, cache.key_scale, scale_place, heads, key_fixed, SIZE, LARGEST)
    _store(new_v, value, cache.value_scale, scale_place, heads, value_fixed, SIZE, LARGEST)


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
        heads, half, kind = q.shape[1], table.shape[2], cache.key.dtype
        rotate_and_store_kernel[(tokens,)](
            q,
            k,
            v,
            positions,
            table,
            slots,
            q.stride()[:2],
            k.stride()[:2],
            v.stride()[:2],
            stored(cache),
            strides_of(cache),
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
            LARGEST=0 if cache.key_scale is None else _LARGEST[kind],
            MIXES=mixed_size(size, kind).bit_length() - 1,
            PDL=overlapped,
            num_warps=_WARPS,
            launch_pdl=overlapped,
        )

    return rotate_and_store


def _specimen(
    dtype: torch.dtype,
    heads: tuple[int, int, int] = (32, 8, 128),
    half: int = 64,
    mixes: int = 0,
) -> Specimen:
    queries, pairs, size = heads
    pointers = {**dict.fromkeys(("q", "k", "v"), "*bf16"), "table": "*fp32"}
    strides = dict.fromkeys(("q_strides", "k_strides", "v_strides"), ("i32", "i32"))
    own = {
        **dict.fromkeys(("key_fixed", "value_fixed"), "fp32"),
        "positions": "*i32",
        "slots": "*i64",
    }
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
        "LARGEST": _LARGEST.get(dtype, 0),
        "MIXES": mixes,
        "PDL": False,
    }
    divisible = (f"{name}.{place}" for name in strides for place in range(2))
    return Specimen(
        rotate_and_store_kernel,
        {**pointers, **strides, **own, **types_of(dtype)},
        constants,
        _WARPS,
        aligned=(*pointers, *divisible, *ALIGNED),
        capabilities=(90,) if dtype == torch.float8_e4m3fn else (80, 90),
    )


SPECIMENS = (
    _specimen(torch.bfloat16),
    _specimen(torch.bfloat16, (64, 8, 128)),
    _specimen(torch.bfloat16, (9, 3, 64), 16),
    _specimen(torch.int8),
    _specimen(torch.uint8, mixes=7),
    _specimen(torch.float8_e5m2),
    _specimen(torch.float8_e4m3fn),
)
