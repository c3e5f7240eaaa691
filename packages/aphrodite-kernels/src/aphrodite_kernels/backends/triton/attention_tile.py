# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""What kernels of attention do with a tile of keys and with its result (arXiv 2205.14135).

A run of the softmax is (largest score [ROWS] as a power of 2, sum of weights [ROWS], weighted sum
of values [ROWS, BLOCK]); the latter two are relative to the largest.
"""

import math

import torch
import triton
import triton.language as tl

LOG2E = tl.constexpr(math.log2(math.e))
LOWEST = tl.constexpr(-1e30)
"""Below every score, yet finite: differences from it are numbers."""


def scale_up(dtype: torch.dtype) -> int:
    """UP of a cache: factor on the scales of values, which `finish` takes off again; 0: no scales.

    float16 holds the product of a weight and a scale that is made so much larger: the largest power
    of 2 within the dtype, by which the product is about as large as the values.
    """
    if dtype.itemsize > 1:
        return 0
    if dtype == torch.uint8:
        return 8
    largest = torch.iinfo(dtype).max if dtype == torch.int8 else torch.finfo(dtype).max
    return 1 << int(largest).bit_length() - 1


@triton.jit
def soften(score, cap):
    """cap * tanh(score / cap)"""
    return cap * (1 - 2 / (tl.exp(score * (2 / cap)) + 1))


@triton.jit
def fitted(query, scale, UP: tl.constexpr):
    """The query as it is multiplied, and what its scores are multiplied by: a number or [ROWS, 1].

    Of a quantised cache it is in float16, in which all its numbers are exact; each row's largest
    number is made 1.
    """
    if UP and query.dtype != tl.float32:
        largest = tl.max(tl.abs(query.to(tl.float32)), 1, keep_dims=True)
        largest = tl.where(largest > 0, largest, 1.0)
        query = (query / largest).to(tl.float16)
        scale = scale * largest
    return query, scale


@triton.jit
def kept(stored, place, there, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Vectors [TILE, BLOCK] of the cache at `place` [TILE], of four bits as int8.

    there: None, or which of them are read [TILE]; the others are zeros.
    """
    FOUR: tl.constexpr = stored.dtype.element_ty == tl.uint8
    WIDTH: tl.constexpr = (SIZE + 1) // 2 if FOUR else SIZE
    ROOM: tl.constexpr = BLOCK // 2 if FOUR else BLOCK
    nothing = 0x88 if FOUR else 0.0
    column = tl.arange(0, ROOM)[None, :]
    place = stored + place[:, None] + column
    if there is not None:
        within = there[:, None]
        if ROOM != WIDTH:
            within &= column < WIDTH
        x = tl.load(place, within, nothing)
    elif ROOM == WIDTH:
        x = tl.load(place)
    else:
        x = tl.load(place, column < WIDTH, nothing)
    if FOUR:
        x = tl.join(x & 15, x >> 4).reshape((x.shape[0], BLOCK)).to(tl.int8) - 8
    return x


@triton.jit
def widened(x, dtype: tl.constexpr):
    """Keys or values in the dtype of the query.

    A number of 8 bits plus 128 is made the last bits of a float16 from 1024 on: a device converts
    integers at a quarter of the rate of this.
    """
    if x.dtype == tl.int8 and dtype == tl.float16:
        bits = (x.to(tl.uint8, bitcast=True) ^ 128).to(tl.uint16) | 0x6400
        return bits.to(tl.float16, bitcast=True) - 1152.0
    return x.to(dtype)


@triton.jit
def attend(
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
    """The run after one more tile of keys, of which those in `seen` [ROWS or 1, TILE] count."""
    score = tl.dot(query, widened(k, query.dtype).T, input_precision="ieee")
    if UP:
        score *= key_scale[None, :]
    if CAPPED:
        score = soften(score * scale, cap) * LOG2E
    else:
        score *= scale * LOG2E
    score = tl.where(seen, score, float("-inf"))
    higher = tl.maximum(top, tl.max(score, 1))
    keep = tl.exp2(top - higher)
    weight = tl.exp2(score - higher[:, None])
    total = total * keep + tl.sum(weight, 1)
    if UP:
        weight *= (value_scale * UP)[None, :]
    weight = weight.to(query.dtype)
    v = widened(v, query.dtype)
    return higher, total, tl.dot(weight, v, values * keep[:, None], input_precision="ieee")


@triton.jit
def empty_run(ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The run over no keys."""
    top = tl.full((ROWS,), LOWEST, tl.float32)
    return top, tl.zeros((ROWS,), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)


@triton.jit
def merged(top, total, values, other_top, other_total, other_values):
    """Two runs as one. Rounded alike wherever it is compiled: no product is left to be fused."""
    higher = tl.maximum(top, other_top)
    keep = tl.exp2(top - higher)
    add = tl.exp2(other_top - higher)
    total = tl.fma(total, keep, other_total * add)
    keep = tl.broadcast_to(keep[:, None], values.shape)
    return higher, total, tl.fma(values, keep, other_values * add[:, None])


@triton.jit
def finish(
    top,
    total,
    values,
    out,
    sinks,
    member,
    there,
    SIZE: tl.constexpr,
    UP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Write a run's rows to `out` [ROWS], heads of the numbers `member`, where `there` [ROWS]."""
    if HAS_SINKS:
        sink = tl.load(sinks + member, there, 0.0) * LOG2E
        one = tl.full(total.shape, 1.0, tl.float32)
        top, total, values = merged(top, total, values, sink, one, tl.zeros_like(values))
    values = values / total[:, None]
    if UP:
        values *= 1 / UP
    column = tl.arange(0, values.shape[1])[None, :]
    within = there[:, None] & (column < SIZE)
    tl.store(out[:, None] + column, values.to(out.dtype.element_ty), within)
