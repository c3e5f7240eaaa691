# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
# pyright: reportAssignmentType=false
"""A walk of one warp over paged keys and values that go from memory into tensor cores directly.

Keys and values are the left operands, of 16 rows at least, and a KV head's few query heads the
right one, of 8 at least: scores = K qᵀ and out = Vᵀ weights. Both products sum over an index whose
order is free: columns of the query and the keys, or positions of the weights and the values. So are
the columns of the result. Here their order is the one in which the 16 bytes that a thread reads at
a time are its own share of the operand of mma.m16n8k16: no tile passes through shared memory, and
no thread waits for another warp.

A thread of a warp is number 4 g + c; a tile of keys or values is read as
[c: 4, g: 8, sixteens of positions, positions of one thread among them, parts of a row, VECTOR].
"""

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.attention_bytes import float16_of
from aphrodite_kernels.backends.triton.attention_tile import LOG2E, LOWEST, soften, widened
from aphrodite_kernels.backends.triton.paged import place_of, scale_place_of


@triton.constexpr_function
def vector_of(block, itemsize):
    """VECTOR: numbers that a thread reads at a time of rows of `block` numbers."""
    return min(16 // itemsize, block // 8)


@triton.jit
def key_order(BLOCK: tl.constexpr, ITEMSIZE: tl.constexpr):
    """Which column of a key is the n-th that is multiplied: [BLOCK]."""
    VECTOR: tl.constexpr = vector_of(BLOCK, ITEMSIZE)
    NEXT: tl.constexpr = min(4 // ITEMSIZE, VECTOR)
    PAIR: tl.constexpr = min(2, VECTOR // NEXT)
    shape: tl.constexpr = (BLOCK // (4 * VECTOR), 4, VECTOR // (PAIR * NEXT), PAIR, NEXT)
    return tl.arange(0, BLOCK).reshape(shape).permute((0, 2, 3, 1, 4)).reshape((BLOCK,))


@triton.jit
def folded_keys(k, VECTOR: tl.constexpr, ITEMSIZE: tl.constexpr):
    """Keys as they are read to [positions, columns in the order of `key_order`]."""
    NEXT: tl.constexpr = min(4 // ITEMSIZE, VECTOR)
    PAIR: tl.constexpr = min(2, VECTOR // NEXT)
    SIXTEENS: tl.constexpr = k.shape[2]
    PARTS: tl.constexpr = k.shape[4]
    k = k.reshape((4, 8, SIXTEENS, 2, PARTS, VECTOR // (PAIR * NEXT), PAIR, NEXT))
    k = k.permute((2, 3, 1, 4, 5, 6, 0, 7))
    return k.reshape((SIXTEENS * 16, PARTS * 4 * VECTOR))


@triton.jit
def value_positions(four, inside, ITEMSIZE: tl.constexpr):
    """Which of 16 positions of values a thread reads, inside = 0..3."""
    if ITEMSIZE == 1:
        return four * 4 + inside
    return inside // 2 * 8 + four * 2 + inside % 2


@triton.jit
def folded_values(v, VECTOR: tl.constexpr, ITEMSIZE: tl.constexpr, DTYPE: tl.constexpr):
    """Values as they are read to [columns, positions], in DTYPE."""
    if ITEMSIZE == 1 and DTYPE == tl.float16:
        v = float16_of(v)
    SIXTEENS: tl.constexpr = v.shape[2]
    PARTS: tl.constexpr = v.shape[4]
    v = v.reshape((4, 8, SIXTEENS, 2, 2, PARTS, VECTOR))
    v = v.permute((5, 6, 1, 2, 0, 3, 4)) if ITEMSIZE == 1 else v.permute((5, 6, 1, 2, 3, 0, 4))
    return widened(v.reshape((PARTS * 8 * VECTOR, SIXTEENS * 16)), DTYPE)


@triton.jit
def visible(position, seq_len, window, WINDOWED: tl.constexpr):
    """Whether the query of a request sees a position."""
    seen = position < seq_len
    if WINDOWED:
        seen &= position >= seq_len - window
    return seen


@triton.jit
def unfolded(values, VECTOR: tl.constexpr):
    """The result [BLOCK, ROWS] as [ROWS, BLOCK], its columns in the order of the cache."""
    BLOCK: tl.constexpr = values.shape[0]
    ROWS: tl.constexpr = values.shape[1]
    values = values.reshape((BLOCK // (8 * VECTOR), VECTOR, 8, ROWS))
    return values.permute((3, 0, 2, 1)).reshape((ROWS, BLOCK))


@triton.constexpr_function
def others(axis):
    """Five of six axes."""
    return [other for other in range(6) if other != axis]


@triton.jit
def along(length: tl.constexpr, axis: tl.constexpr):
    """Numbers from 0 along one of six axes."""
    return tl.expand_dims(tl.arange(0, length), others(axis))


@triton.jit
def scales_of(
    position,
    start,
    end,
    cache,
    strides,
    head,
    table,
    BLOCK_SIZE: tl.constexpr,
):
    """Of the keys and values of each position in [start, end)."""
    there = (position >= start) & (position < end)
    block = tl.load(table + position // BLOCK_SIZE, there, 0)
    place = head + scale_place_of(block, position % BLOCK_SIZE, strides)
    key_scale = tl.load(cache.key_scale + place, there, 0.0)
    return key_scale, tl.load(cache.value_scale + place, there, 0.0)


@triton.jit
def attend_columns(
    query,
    k,
    v,
    key_scale,
    value_scale,
    seen,
    scale,
    cap,
    top,
    total,
    values,
    CAPPED: tl.constexpr,
    UP: tl.constexpr,
):
    """The run after one more tile, as `attend`, for a column of each query head.

    query [BLOCK, ROWS], k [TILE, BLOCK], v [BLOCK, TILE], scale a number or [1, ROWS],
    top and total [ROWS], values [BLOCK, ROWS].
    """
    score = tl.dot(k, query, input_precision="ieee")
    if UP:
        score *= key_scale[:, None]
    if CAPPED:
        score = soften(score * scale, cap) * LOG2E
    else:
        score *= scale * LOG2E
    score = tl.where(seen[:, None], score, float("-inf"))
    higher = tl.maximum(top, tl.max(score, 0))
    keep = tl.exp2(top - higher)
    weight = tl.exp2(score - higher[None, :])
    total = total * keep + tl.sum(weight, 0)
    if UP:
        weight *= (value_scale * UP)[:, None]
    weight = weight.to(query.dtype)
    return higher, total, tl.dot(v, weight, values * keep[None, :], input_precision="ieee")


@triton.jit
def walk_folded(
    query,
    cache,
    strides,
    head,
    table,
    first,
    last,
    seq_len,
    window,
    scale,
    cap,
    SIZE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    UP: tl.constexpr,
):
    """The run over tiles [first, last) of a request, for one KV head; blocks are of 16 n positions.

    query: columns in the order of `key_order`. Scales are read a tile before they are needed: they
    change threads by way of shared memory, and no read is moved across that.
    """
    ITEMSIZE: tl.constexpr = cache.key.dtype.element_ty.primitive_bitwidth // 8
    BLOCK: tl.constexpr = query.shape[1]
    VECTOR: tl.constexpr = vector_of(BLOCK, ITEMSIZE)
    ROWS: tl.constexpr = query.shape[0]
    DTYPE: tl.constexpr = query.dtype
    top = tl.full((ROWS,), LOWEST, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    values = tl.zeros((BLOCK, ROWS), tl.float32)
    query = query.T
    if UP and DTYPE != tl.float32:
        scale = scale.T
    key = cache.key + head * strides.head
    value = cache.value + head * strides.head
    four, eight, vector = along(4, 0), along(8, 1), along(VECTOR, 5)
    sixteens = along(TILE // 16, 2)
    k_inside = along(2, 3) * 8 + eight
    v_inside = value_positions(four, along(4, 3), ITEMSIZE)
    k_column = along(BLOCK // (4 * VECTOR), 4) * (4 * VECTOR) + four * VECTOR + vector
    v_column = along(BLOCK // (8 * VECTOR), 4) * (8 * VECTOR) + eight * VECTOR + vector
    k_scale = 1.0
    v_scale = 1.0
    if UP:
        start = seq_len - window if WINDOWED else 0
        end = tl.minimum(seq_len, last * TILE)
        position = first * TILE + tl.arange(0, TILE)
        k_scale, v_scale = scales_of(position, start, end, cache, strides, head, table, BLOCK_SIZE)
    for tile in tl.range(first, last):
        begin = tile * TILE + sixteens * 16
        begun = begin < seq_len
        if WINDOWED:
            begun &= begin + 16 > seq_len - window
        block = tl.load(table + begin // BLOCK_SIZE, begun, 0)
        slot = begin % BLOCK_SIZE
        k_seen = visible(begin + k_inside, seq_len, window, WINDOWED)
        v_seen = visible(begin + v_inside, seq_len, window, WINDOWED)
        if BLOCK != SIZE:
            k_seen &= k_column < SIZE
            v_seen &= v_column < SIZE
        k = tl.load(key + place_of(block, slot + k_inside, strides) + k_column, k_seen, 0.0)
        v = tl.load(value + place_of(block, slot + v_inside, strides) + v_column, v_seen, 0.0)
        position = tile * TILE + tl.arange(0, TILE)
        if UP:
            beyond = position + TILE
            following = scales_of(beyond, start, end, cache, strides, head, table, BLOCK_SIZE)
        top, total, values = attend_columns(
            query,
            widened(folded_keys(k, VECTOR, ITEMSIZE), DTYPE),
            folded_values(v, VECTOR, ITEMSIZE, DTYPE),
            k_scale,
            v_scale,
            visible(position, seq_len, window, WINDOWED),
            scale,
            cap,
            top,
            total,
            values,
            CAPPED,
            UP,
        )
        if UP:
            k_scale, v_scale = following
    return top, total, unfolded(values, VECTOR)
