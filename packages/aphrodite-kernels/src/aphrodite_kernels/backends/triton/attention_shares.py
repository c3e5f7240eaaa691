# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""Shares of the keys that a query sees, at places that follow from its own position alone."""

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.attention_tile import LOWEST, attend, empty_run, kept, merged
from aphrodite_kernels.backends.triton.paged import place_of, scale_place_of

_DOUBLINGS = tl.constexpr(16)
"""Of the shortest share at most: for contexts of 2^28 positions."""


@triton.jit
def share_of(lowest, highest, PARTS: tl.constexpr, SHARE: tl.constexpr):
    """Length of a share, so that positions lowest to highest lie in at most PARTS of them."""
    length = highest * 0 + SHARE
    for _ in tl.static_range(_DOUBLINGS):
        length = tl.where(highest // length - lowest // length >= PARTS, 2 * length, length)
    return length


@triton.jit
def shares_of(lowest, last, PARTS: tl.constexpr, SHARE: tl.constexpr, SPLIT: tl.constexpr):
    """Length, first and end of a program's shares of positions lowest to last: all, or one."""
    length = share_of(lowest, last, PARTS, SHARE)
    first = lowest // length + tl.program_id(2)
    end = last // length + 1
    if SPLIT:
        end = tl.minimum(end, first + 1)
    return length, first, end


@triton.jit
def walk(
    query,
    position,
    start,
    end,
    lowest,
    length,
    cache,
    strides,
    head,
    table,
    window,
    scale,
    cap,
    SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    SHARE: tl.constexpr,
    ONE: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    UP: tl.constexpr,
):
    """Largest scores, sums of weights and of weighted values of queries at `position` [ROWS].

    Keys are those of positions start, the first of a tile, to below end. They are ONE share, or
    merged share by share of each row's `length`. No key below `lowest` is read.
    """
    key = cache.key + head * strides.head
    value = cache.value + head * strides.head
    offset = tl.arange(0, TILE)
    whole_top, whole_total, whole = empty_run(query.shape[0], query.shape[1])
    top, total, values = whole_top, whole_total, whole
    for at in tl.range(start, end, TILE):
        near = tl.minimum(tl.maximum(at + offset, lowest), end - 1)
        block = tl.load(table + near // BLOCK_SIZE)
        inside = near % BLOCK_SIZE
        here = place_of(block, inside, strides)
        k_scale = 1.0
        v_scale = 1.0
        if UP:
            scales = scale_place_of(block, inside, strides)
            k_scale = tl.load(cache.key_scale + head + scales)
            v_scale = tl.load(cache.value_scale + head + scales)
        distance = position[:, None] - (at + offset)[None, :]
        seen = distance >= 0
        if WINDOWED:
            seen &= distance < window
        top, total, values = attend(
            query,
            kept(key, here, None, SIZE, query.shape[1]),
            kept(value, here, None, SIZE, query.shape[1]),
            k_scale,
            v_scale,
            seen,
            scale,
            cap,
            top,
            total,
            values,
            CAPPED,
            UP,
        )
        upto = at + TILE
        if not ONE and ((upto % SHARE == 0) | (upto >= end)):
            ended = (upto % length == 0) | (upto >= end)
            higher, sums, sum_values = merged(whole_top, whole_total, whole, top, total, values)
            whole_top = tl.where(ended, higher, whole_top)
            whole_total = tl.where(ended, sums, whole_total)
            whole = tl.where(ended[:, None], sum_values, whole)
            top = tl.where(ended, LOWEST, top)
            total = tl.where(ended, 0.0, total)
            values = tl.where(ended[:, None], 0.0, values)
    if ONE:
        return top, total, values
    else:
        return whole_top, whole_total, whole
