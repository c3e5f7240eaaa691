# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""Attention of requests with several queries, over the paged cache.

All query heads of a KV head are rows of one tile (row r is query r // GROUP, head r % GROUP of the
group), which walks the keys once in tiles of fixed positions with a running softmax (arXiv
2205.14135, 2307.08691). Tiles behind the last query and before the first window are left out. Late
queries, whose walk is longest, start first.

A row's result depends on its query and its keys alone, bit for bit, whichever rows share its tile:
sums run over positions in one order, and keys it does not see add exact zeros.

Where a tile of keys lies within a block, the device's copy engine brings it (a descriptor of the
whole cache) instead of all threads, each with the addresses of its rows.

Floor: 4 * H * D operations for each pair of a query and a key it sees.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.triton.attention_arguments import (
    VARYING,
    arguments,
    constants,
    specimen,
)
from aphrodite_kernels.backends.triton.attention_tile import LOG2E, LOWEST, kept, soften, widened
from aphrodite_kernels.backends.triton.descriptors import described
from aphrodite_kernels.backends.triton.paged import KINDS, place_of, scale_place_of
from aphrodite_kernels.backends.triton.specimen import Specimen

_REQUESTS = 256
"""Requests that a program looks at together for its own."""


@dataclass(frozen=True, slots=True)
class PrefillTiling:
    """What a program holds. Rows of two steps are equal bit for bit only under the same one."""

    rows: int
    """Queries times heads of a group."""
    tile: int
    """Positions a step."""
    num_warps: int
    num_stages: int
    described: bool = False
    """The copy engine brings tiles, each of which lies within a block."""


def prefill_tiling(
    size: int, dtype: torch.dtype, kept: torch.dtype, block_size: int, major: int
) -> PrefillTiling:
    """For heads of `size` numbers, queries of `dtype`, a cache of `kept` in blocks of `block_size`,
    and a device's major compute capability.
    """
    if dtype == torch.float32:  # multiplied without tensor cores
        return PrefillTiling(*((16, 16) if size > 128 else (32, 32)), num_warps=4, num_stages=2)
    whole = size in (64, 128) and kept != torch.uint8 and block_size % 64 == 0
    if major in (9, 10) and whole:  # two programs to a processor: one multiplies, one sums
        return PrefillTiling(128, 64, num_warps=4, num_stages=2, described=True)
    if major in (9, 10):  # products read tiles from shared memory, of which there are 227 KiB
        return PrefillTiling(128, 64, num_warps=8, num_stages=2 if size > 128 else 3)
    if size > 128:  # 99 KiB, and every warp holds a tile in registers
        return PrefillTiling(64, 32, num_warps=4, num_stages=2)
    return PrefillTiling(128, 32 if kept.itemsize == 1 else 64, num_warps=8, num_stages=2)


@cache
def _major(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 0


@triton.jit
def request_of(
    slot,
    query_starts,
    requests,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    REQUESTS: tl.constexpr,
):
    """The request to which a slot of the grid belongs, and its place behind the request's first.

    Request b has the slots from query_starts[b] * GROUP // ROWS + b on: at least one for each of
    its tiles of ROWS rows.
    """
    request = 0
    if requests > 1:
        request = -1
        for first in tl.range(0, requests, REQUESTS):
            each = first + tl.arange(0, REQUESTS)
            there = each < requests
            begun = tl.load(query_starts + each, there, 0) * GROUP // ROWS + each <= slot
            request += tl.sum((begun & there).to(tl.int32))
    return request, slot - tl.load(query_starts + request) * GROUP // ROWS - request


@triton.jit
def attend_tile(
    query,
    k,
    v,
    partial,
    distance,
    window,
    scale,
    cap,
    top,
    total,
    values,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
):
    """The running softmax (largest score, sum, values) after one more tile of keys.

    distance [ROWS, TILE]: query's position less the key's; looked at if `partial`.
    """
    score = tl.dot(query, k.T, input_precision="ieee")
    factor = scale * LOG2E
    if CAPPED:
        score = soften(score * scale, cap)
        factor = LOG2E
    if partial:
        seen = distance >= 0
        if WINDOWED:
            seen &= distance < window
        score = tl.where(seen, score, float("-inf"))
    higher = tl.maximum(top, tl.max(score, 1) * factor)
    keep = tl.exp2(top - higher)
    lower = tl.broadcast_to(-higher[:, None], score.shape)
    weight = tl.exp2(tl.fma(score, tl.full(score.shape, factor, tl.float32), lower))
    total = total * keep + tl.sum(weight, 1)
    values = tl.dot(weight.to(query.dtype), v, values * keep[:, None], input_precision="ieee")
    return higher, total, values


@triton.jit
def restored(x, scales, scale_here, kind: tl.constexpr):
    """Vectors [TILE, BLOCK] of the cache as `kind`: times their scales, unless those are None.

    In float16, in which all numbers of a cache are exact, by a half to one and then by a power of
    2: neither of a small scale's bits nor of a large number's is one lost on the way.
    """
    if scales is not None:
        scale = tl.load(scales + scale_here)[:, None]
        if x.dtype == tl.float8e5:  # the upper half of a float16; sm_80 has no instruction for it
            x = (x.to(tl.uint8, bitcast=True).to(tl.uint16) << 8).to(tl.float16, bitcast=True)
        if kind == tl.float32:
            return x.to(tl.float32) * scale
        above = (scale.to(tl.int32, bitcast=True) & 0x7F800000) + 0x00800000
        power = above.to(tl.float32, bitcast=True)
        part = scale * (0x7F000000 - above).to(tl.float32, bitcast=True)  # over the power
        return widened(x, tl.float16) * part.to(tl.float16) * power.to(tl.float16)
    return x.to(kind)


@triton.jit
def walk(
    query, position, first, last, top, total, window, scale, cap, table,
    cache, strides, head, key_tiles, value_tiles,
    SIZE: tl.constexpr, BLOCK_SIZE: tl.constexpr, TILE: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr,
):  # fmt: skip
    """Sums of weights and of weighted values of queries at `position` [ROWS], first to last.

    Tiles start at multiples of TILE. Keys that no query sees have the weight 0. With descriptors
    (key_tiles, value_tiles) they are read all the same, whoever's they are, so values must be
    finite; without, the nearest that one sees stands in for them, and the table is read a tile
    ahead.
    """
    key = cache.key + head * strides.head
    value = cache.value + head * strides.head
    BLOCK: tl.constexpr = query.shape[1]
    offset = tl.arange(0, TILE)
    values = tl.zeros(query.shape, tl.float32)
    lowest = 0
    full_from = 0
    if WINDOWED:
        lowest = tl.maximum(first - window + 1, 0)
        full_from = tl.maximum(last - window + 1, 0)
    begin = lowest // TILE * TILE
    if key_tiles is None:
        at = tl.minimum(tl.maximum(begin + offset, lowest), last)
        block = tl.load(table + at // BLOCK_SIZE).to(tl.int64)
    for start in tl.range(begin, last + 1, TILE):
        if key_tiles is None:
            inside = at % BLOCK_SIZE
            here = place_of(block, inside, strides)
            scale_here = head + scale_place_of(block, inside, strides)
            k = kept(key, here, None, SIZE, BLOCK)
            v = kept(value, here, None, SIZE, BLOCK)
            at = tl.minimum(tl.maximum(start + TILE + offset, lowest), last)
            block = tl.load(table + at // BLOCK_SIZE).to(tl.int64)
        else:
            whole = tl.load(table + start // BLOCK_SIZE)
            first_inside = start % BLOCK_SIZE
            scale_here = head + scale_place_of(whole, first_inside + offset, strides)
            k = key_tiles.load([whole, first_inside, head, 0]).reshape(TILE, BLOCK)
            v = value_tiles.load([whole, first_inside, head, 0]).reshape(TILE, BLOCK)
        k = restored(k, cache.key_scale, scale_here, query.dtype)
        v = restored(v, cache.value_scale, scale_here, query.dtype)
        partial = (start + TILE > first + 1) | (start < full_from)
        distance = position[:, None] - (start + offset)[None, :]
        top, total, values = attend_tile(
            query, k, v, partial, distance, window, scale, cap, top, total, values, WINDOWED, CAPPED
        )
    return total, values


@triton.jit(do_not_specialize=VARYING)
def prefill_kernel(
    q, out, sinks, block_tables, seq_lens, query_starts, requests, table_stride,
    window, scale, cap, q_strides, cache, strides, key_tiles, value_tiles,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, BLOCK_SIZE: tl.constexpr, GROUP: tl.constexpr,
    ROWS: tl.constexpr, TILE: tl.constexpr, REQUESTS: tl.constexpr, LEAST: tl.constexpr,
    WINDOWED: tl.constexpr, CAPPED: tl.constexpr, HAS_SINKS: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    """Slot program_id(1), KV head program_id(0), of the requests with at least LEAST queries."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    head = tl.program_id(0)
    slot = tl.program_id(1)
    request, behind = request_of(slot, query_starts, requests, GROUP, ROWS, REQUESTS)
    begin = tl.load(query_starts + request)
    count = tl.load(query_starts + request + 1) - begin
    before = tl.load(seq_lens + request) - count
    tile = tl.cdiv(count * GROUP, ROWS) - 1 - behind
    if (tile >= 0) & (count >= LEAST):
        row = tile * ROWS + tl.arange(0, ROWS)
        number = tl.minimum(row // GROUP, count - 1)
        member = head * GROUP + row % GROUP
        column = tl.arange(0, BLOCK)[None, :]
        there = (row < count * GROUP)[:, None] & (column < SIZE)
        token = (begin + number).to(tl.int64)
        place = token * q_strides[0] + member * q_strides[1]
        query = tl.load(q + place[:, None] + column, there, 0.0)
        if cache.key_scale is not None and query.dtype != tl.float32:
            query = query.to(tl.float16)
        top = tl.full((ROWS,), LOWEST, tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        if HAS_SINKS:
            sink = tl.load(sinks + member) * LOG2E
            top = tl.maximum(sink, top)
            total = tl.exp2(sink - top)
        first = before + tile * ROWS // GROUP
        total, values = walk(
            query, before + number, first, before + tl.max(number), top, total, window, scale, cap,
            block_tables + request * table_stride, cache, strides, head, key_tiles, value_tiles,
            SIZE, BLOCK_SIZE, TILE, WINDOWED, CAPPED,
        )  # fmt: skip
        written = token * (tl.num_programs(0) * GROUP * SIZE) + member * SIZE
        result = (values / total[:, None]).to(out.dtype.element_ty)
        tl.store(out + written[:, None] + column, result, there)


def prefill_attention(
    q: Tensor,
    cache: KVCache,
    meta: AttentionMeta,
    spec: AttentionSpec,
    out: Tensor,
    *,
    every: bool,
    overlapped: bool = False,
    tiling: PrefillTiling | None = None,
) -> None:
    """Attention of q [T, H, D] into out [T, H, D], contiguous: rows of some requests.

    every: of all requests; otherwise of those with several queries. tiling None: the usual one.
    """
    tokens, heads, size = q.shape
    key = cache.key
    tiling = tiling or prefill_tiling(size, q.dtype, key.dtype, cache.block_size, _major(q.device))
    tiles = (None, None)
    if tiling.described:
        tiles = [described(part, 1, tiling.tile, 1, size) for part in (key, cache.value)]
    pairs = key.shape[2]
    slots = tokens * (heads // pairs) // tiling.rows + len(meta.seq_lens)
    prefill_kernel[(pairs, slots)](
        *arguments(q, cache, meta, spec, out),
        *tiles,
        ROWS=tiling.rows,
        TILE=tiling.tile,
        REQUESTS=_REQUESTS,
        LEAST=1 if every else 2,
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
        **constants(q, cache, spec, overlapped=overlapped),
    )


def _specimen(
    major: int,
    size: int = 128,
    dtype: torch.dtype = torch.bfloat16,
    *,
    block_size: int = 16,
    windowed: bool = False,
    capped: bool = False,
) -> Specimen:
    tiling = prefill_tiling(size, torch.bfloat16, dtype, block_size, major)
    kind = KINDS[dtype].removeprefix("*")
    tiles = f"tensordesc<{kind}[1,{tiling.tile},1,{size}]>"
    own = dict.fromkeys(("key_tiles", "value_tiles"), tiles) if tiling.described else {}
    constants: dict[str, object] = {
        "ROWS": tiling.rows,
        "TILE": tiling.tile,
        "REQUESTS": _REQUESTS,
        "LEAST": 2,
        "WINDOWED": windowed,
        "CAPPED": capped,
    }
    launched = tiling.num_warps, tiling.num_stages
    plain = specimen(
        prefill_kernel, dtype, own, constants, launched, size, block_size, (10 * major,)
    )
    # 255 registers: two programs share a processor
    return replace(plain, spilled=160) if tiling.described else plain


SPECIMENS = (
    *(_specimen(major) for major in (8, 9)),
    *(_specimen(major, 80, windowed=True) for major in (8, 9)),
    *(_specimen(major, 256, windowed=True, capped=True) for major in (8, 9)),
    *(_specimen(major, dtype=kind) for major in (8, 9) for kind in (torch.int8, torch.uint8)),
    *(_specimen(major, 64, torch.float8_e5m2) for major in (8, 9)),
    _specimen(9, dtype=torch.float8_e4m3fn),
    *(
        _specimen(9, dtype=kind, block_size=64)
        for kind in (torch.bfloat16, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
    ),
)
