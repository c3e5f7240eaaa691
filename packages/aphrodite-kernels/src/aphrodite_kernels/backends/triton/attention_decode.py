# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false
"""Attention of requests with one query, over the paged cache.

For one KV head, the tiles of TILE positions of all such requests form one line, which is cut into
equal shares, one per program and KV head (as stream-K cuts a product, arXiv 2301.03598): however
unequal the contexts are, all processors are busy to the end. Lengths are read on the device. A
program walks the pieces of requests in its share; a request that lies in several shares leaves a
partial per piece, and the last program to arrive merges them in order of position (arXiv
2205.14135, 2311.01282). All query heads of a KV head are rows of one tile, padded to 16.
Neighbouring programs read neighbouring heads of the same positions.

Floor: the keys and values of all contexts, once, over the read bandwidth.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.backends.triton.store_kv import check_strides
from aphrodite_kernels.errors import ShapeError

_LOG2E = tl.constexpr(1.4426950408889634)
_PIECES = 8
"""Partials that are merged at a time."""
_FLOATS = 1 << 22
"""Of the partials: 16 MiB."""
_HEADS = 1 << 16
"""Requests times KV heads of a step."""


@dataclass(frozen=True, slots=True)
class Walk:
    """How programs go along the line."""

    tile: int
    """Positions a step."""
    num_warps: int
    num_stages: int
    resident: int
    """Programs for each processor."""
    least: int
    """Tiles of the shortest share."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where programs that share a request meet. Kernels of one stream at a time may use it."""

    partials: Tensor
    """float32: [slots, heads of a group, head size + 2], the last two behind all others."""
    arrivals: Tensor
    """int32: pieces of each request and KV head that are written; zero between kernels."""
    processors: int


def meeting_on(device: torch.device) -> Meeting:
    """A meeting place on `device`, 16 MiB."""
    cuda = device.type == "cuda"
    return Meeting(
        partials=torch.empty(_FLOATS, dtype=torch.float32, device=device),
        arrivals=torch.zeros(_HEADS, dtype=torch.int32, device=device),
        processors=torch.cuda.get_device_properties(device).multi_processor_count if cuda else 4,
    )


def walk_for(size: int, itemsize: int) -> Walk:
    """The walk for heads of `size` numbers that take `itemsize` bytes each in the cache."""
    vector = triton.next_power_of_2(size) * itemsize
    tile = min(64, max(16, (1 << 14) // vector))
    return Walk(tile, num_warps=4, num_stages=4, resident=2, least=2)


@triton.jit
def soften(score, cap):
    """cap * tanh(score / cap)"""
    return cap * (1 - 2 / (tl.exp(score * (2 / cap)) + 1))


@triton.jit
def walk_piece(
    query,
    key,
    value,
    key_scale,
    value_scale,
    table,
    first,
    last,
    seq_len,
    window,
    scale,
    cap,
    block_stride,
    slot_stride,
    scale_block_stride,
    scale_slot_stride,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    UP: tl.constexpr,
):
    """Tiles [first, last) of a request, for one KV head.

    query [ROWS, BLOCK] times scale, a number or [ROWS, 1], gives the scores. UP: see `scale_up`.

    Returns the largest scores [ROWS] (as powers of 2), sums [ROWS] and values [ROWS, BLOCK], the
    latter two relative to the largest score.
    """
    column = tl.arange(0, BLOCK)[None, :]
    top = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    values = tl.zeros((ROWS, BLOCK), tl.float32)
    for tile in tl.range(first, last):
        position = tile * TILE + tl.arange(0, TILE)
        seen = position < seq_len
        if WINDOWED:
            seen &= position >= seq_len - window
        block = tl.load(table + position // BLOCK_SIZE, seen, 0).to(tl.int64)
        inside = position % BLOCK_SIZE
        place = (block * block_stride + inside * slot_stride)[:, None] + column
        there = seen[:, None]
        if BLOCK != SIZE:
            there &= column < SIZE
        k = tl.load(key + place, there, 0.0).to(query.dtype)
        score = tl.dot(query, k.T, input_precision="ieee")
        if UP:
            scale_place = block * scale_block_stride + inside * scale_slot_stride
            score *= tl.load(key_scale + scale_place, seen, 0.0)[None, :]
        if CAPPED:
            score = soften(score * scale, cap) * _LOG2E
        else:
            score *= scale * _LOG2E
        score = tl.where(seen[None, :], score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))
        keep = tl.exp2(top - higher)
        weight = tl.exp2(score - higher[:, None])
        total = total * keep + tl.sum(weight, 1)
        if UP:
            weight *= (tl.load(value_scale + scale_place, seen, 0.0) * UP)[None, :]
        v = tl.load(value + place, there, 0.0).to(query.dtype)
        values = tl.dot(weight.to(query.dtype), v, values * keep[:, None], input_precision="ieee")
        top = higher
    if UP:
        values *= 1 / UP
    return top, total, values


@triton.jit
def half(query, scale):
    """The query in float16, each row's largest number 1, and the scale that makes up for it."""
    largest = tl.max(tl.abs(query.to(tl.float32)), 1, keep_dims=True)
    largest = tl.where(largest > 0, largest, 1.0)
    return (query / largest).to(tl.float16), scale * largest


@triton.jit
def finish(
    top,
    total,
    values,
    out,
    sinks,
    head,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Divide by the sum of weights, those of sinks included, and write rows of out."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    if HAS_SINKS:
        sink = tl.load(sinks + head * GROUP + row, row < GROUP, float("-inf")) * _LOG2E
        higher = tl.maximum(top, sink)
        keep = tl.exp2(top - higher)
        total = total * keep + tl.exp2(sink - higher)
        values *= keep[:, None]
    place = out + (head * GROUP + row)[:, None] * SIZE + column
    result = (values / total[:, None]).to(out.dtype.element_ty)
    tl.store(place, result, (row < GROUP)[:, None] & (column < SIZE))


@triton.jit
def leave(
    top,
    total,
    values,
    partials,
    slot,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    KEPT: tl.constexpr,
):
    """Write the first KEPT rows of a partial to its slot."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    here = partials + slot * (KEPT * (SIZE + 2))
    kept = row < KEPT
    tl.store(here + row[:, None] * SIZE + column, values, kept[:, None] & (column < SIZE))
    tl.store(here + KEPT * SIZE + row, top, kept)
    tl.store(here + KEPT * (SIZE + 1) + row, total, kept)


@triton.jit
def merge(
    partials,
    first_share,
    pieces,
    heads,
    head,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    KEPT: tl.constexpr,
    PIECES: tl.constexpr,
):
    """The partials of all pieces, in order of position, as one."""
    row = tl.arange(0, KEPT)
    column = tl.arange(0, BLOCK)[None, None, :]
    top = tl.full((KEPT,), float("-inf"), tl.float32)
    total = tl.zeros((KEPT,), tl.float32)
    values = tl.zeros((KEPT, BLOCK), tl.float32)
    for begin in tl.range(0, pieces, PIECES):
        piece = begin + tl.arange(0, PIECES)
        written = (piece < pieces)[:, None]
        slot = 2 * ((first_share + piece) * heads + head) + (piece == 0)
        here = partials + (slot * (KEPT * (SIZE + 2)))[:, None] + row[None, :]
        tops = tl.load(here + KEPT * SIZE, written, float("-inf"), cache_modifier=".cg")
        totals = tl.load(here + KEPT * (SIZE + 1), written, 0.0, cache_modifier=".cg")
        place = here[:, :, None] + row[None, :, None] * (SIZE - 1) + column
        there = written[:, :, None] & (column < SIZE)
        parts = tl.load(place, there, 0.0, cache_modifier=".cg")
        higher = tl.maximum(top, tl.max(tops, 0))
        keep = tl.exp2(top - higher)
        share = tl.exp2(tops - higher[None, :])
        total = total * keep + tl.sum(totals * share, 0)
        values = values * keep[:, None] + tl.sum(parts * share[:, :, None], 0)
        top = higher
    return top, total, values


@triton.jit(do_not_specialize=["requests", "window", "least"])
def decode_kernel(
    q,
    key,
    value,
    key_scale,
    value_scale,
    block_tables,
    seq_lens,
    query_starts,
    sinks,
    out,
    partials,
    arrivals,
    requests,
    window,
    least,
    scale,
    cap,
    q_stride,
    q_head_stride,
    table_stride,
    block_stride,
    slot_stride,
    head_stride,
    scale_block_stride,
    scale_slot_stride,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    KEPT: tl.constexpr,
    ROWS: tl.constexpr,
    REQUESTS: tl.constexpr,
    TILE: tl.constexpr,
    PIECES: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    UP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Share program_id(1) of the line of KV head program_id(0).

    window: WINDOWED; least: tiles of the shortest share; cap: CAPPED; scales: UP, else 0.
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    head, heads = tl.program_id(0), tl.num_programs(0)
    every = tl.arange(0, REQUESTS)
    counts = tiles_of(every, every < requests, seq_lens, query_starts, window, TILE, WINDOWED)
    line = tl.sum(counts)
    length = tl.maximum(tl.cdiv(line, tl.num_programs(1)), least)
    begin = tl.program_id(1) * length
    end = tl.minimum(begin + length, line)
    upto = tl.cumsum(counts)
    first_request = tl.sum((upto <= begin).to(tl.int32))
    last_request = tl.sum((upto < end).to(tl.int32))
    start = tl.sum(tl.where(every < first_request, counts, 0))
    if begin >= end:
        last_request = first_request - 1
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    for request in tl.range(first_request, last_request + 1):
        count = tl.sum(tl.where(every == request, counts, 0))
        if count > 0:
            seq_len = tl.load(seq_lens + request)
            token = tl.load(query_starts + request).to(tl.int64)
            place = q + token * q_stride + (head * GROUP + row) * q_head_stride + column
            query = tl.load(place, (row < GROUP) & (column < SIZE), 0.0)
            factor = scale
            if UP and q.dtype.element_ty != tl.float32:
                query, factor = half(query, scale)
            skipped = tl.maximum(seq_len - window, 0) // TILE if WINDOWED else 0
            first = tl.maximum(begin - start, 0)
            last = tl.minimum(end - start, count)
            top, total, values = walk_piece(
                query,
                key + head * head_stride,
                value + head * head_stride,
                key_scale + head if UP else None,
                value_scale + head if UP else None,
                block_tables + request * table_stride,
                skipped + first,
                skipped + last,
                seq_len,
                window,
                factor,
                cap,
                block_stride,
                slot_stride,
                scale_block_stride,
                scale_slot_stride,
                SIZE,
                BLOCK,
                BLOCK_SIZE,
                ROWS,
                TILE,
                WINDOWED,
                CAPPED,
                UP,
            )
            rows = out + token * (heads * GROUP * SIZE)
            if last - first == count:
                finish(top, total, values, rows, sinks, head, GROUP, SIZE, BLOCK, ROWS, HAS_SINKS)
            else:
                slot = 2 * (tl.program_id(1) * heads + head) + (first == 0)
                leave(top, total, values, partials, slot, SIZE, BLOCK, ROWS, KEPT)
                tl.debug_barrier()  # every thread's part is written before one thread says so
                counter = arrivals + request * heads + head
                arrived = tl.atomic_add(counter, 1, sem="acq_rel", scope="gpu")
                first_share = start // length
                pieces = (start + count - 1) // length - first_share + 1
                if arrived == pieces - 1:
                    tl.store(counter, 0)
                    peak, sums, whole = merge(
                        partials, first_share, pieces, heads, head, SIZE, BLOCK, KEPT, PIECES
                    )
                    finish(
                        peak, sums, whole, rows, sinks, head, GROUP, SIZE, BLOCK, KEPT, HAS_SINKS
                    )
        start += count


@triton.jit
def tiles_of(
    request,
    there,
    seq_lens,
    query_starts,
    window,
    TILE: tl.constexpr,
    WINDOWED: tl.constexpr,
):
    """How many tiles each request's query sees; none of a request with more queries."""
    seq_len = tl.load(seq_lens + request, there, 0)
    following = tl.load(query_starts + request + 1, there, 0)
    alone = following - tl.load(query_starts + request, there, 0) == 1
    count = tl.cdiv(seq_len, TILE)
    if WINDOWED:
        count -= tl.maximum(seq_len - window, 0) // TILE
    return tl.where(alone, count, 0)


def scale_up(dtype: torch.dtype) -> int:
    """Factor on the scales of a quantised cache's values: float16 holds their product with weights.

    The largest power of 2 within the dtype, so that the product is about as large as the values.
    """
    largest = torch.iinfo(dtype).max if dtype == torch.int8 else torch.finfo(dtype).max
    return 1 << int(largest).bit_length() - 1


def decode_attention(
    q: Tensor,
    cache: KVCache,
    meta: AttentionMeta,
    spec: AttentionSpec,
    out: Tensor,
    meeting: Meeting,
    walk: Walk | None = None,
    *,
    overlapped: bool = False,
) -> None:
    """Write to out [T, H, D] the rows of requests with one query; the others are left alone."""
    key, scales = cache.key, cache.key_scale
    check_strides(cache)
    (_, heads, size), pairs, requests = q.shape, key.shape[2], len(meta.seq_lens)
    group = heads // pairs
    walk = walk or walk_for(size, key.itemsize)
    kept = triton.next_power_of_2(group)
    tiles = requests * triton.cdiv(meta.max_seq, walk.tile)
    shares = min(
        max(1, meeting.processors * walk.resident // pairs),
        triton.cdiv(tiles, walk.least),
        meeting.partials.numel() // (2 * pairs * kept * (size + 2)),
    )
    if requests * pairs > len(meeting.arrivals) or shares == 0:
        raise ShapeError(
            f"decoding {requests} requests of {heads} heads of {size}, {pairs} KV heads: more than "
            f"{len(meeting.arrivals)} heads in all, or no room for the partials of one share; "
            "run fewer requests at once"
        )
    decode_kernel[(pairs, shares)](
        q,
        key,
        cache.value,
        scales,
        cache.value_scale,
        meta.block_tables,
        meta.seq_lens,
        meta.query_starts,
        spec.sinks,
        out,
        meeting.partials,
        meeting.arrivals,
        requests,
        spec.window or 0,
        walk.least,
        spec.scale,
        spec.softcap or 0.0,
        q.stride(0),
        q.stride(1),
        meta.block_tables.stride(0),
        key.stride(0),
        key.stride(1),
        key.stride(2),
        0 if scales is None else scales.stride(0),
        0 if scales is None else scales.stride(1),
        SIZE=size,
        BLOCK=triton.next_power_of_2(size),
        BLOCK_SIZE=cache.block_size,
        GROUP=group,
        KEPT=kept,
        ROWS=max(16, kept),
        REQUESTS=triton.next_power_of_2(requests),
        TILE=walk.tile,
        PIECES=_PIECES,
        WINDOWED=spec.window is not None,
        CAPPED=spec.softcap is not None,
        UP=0 if scales is None else scale_up(key.dtype),
        HAS_SINKS=spec.sinks is not None,
        PDL=overlapped,
        num_warps=walk.num_warps,
        num_stages=walk.num_stages,
        launch_pdl=overlapped,
    )


def _specimen(kind: str, dtype: torch.dtype, size: int = 128, block_size: int = 16) -> Specimen:
    itemsize = dtype.itemsize
    quantized = itemsize == 1
    walk = walk_for(size, itemsize)
    pointers = {
        "q": "*bf16",
        **dict.fromkeys(("key", "value"), kind),
        **(dict.fromkeys(("key_scale", "value_scale"), "*fp32") if quantized else {}),
        **dict.fromkeys(("block_tables", "seq_lens", "query_starts"), "*i32"),
        "out": "*bf16",
        "partials": "*fp32",
        "arrivals": "*i32",
    }
    strides = ("q_stride", "q_head_stride", "block_stride", "slot_stride", "head_stride")
    counts = ("requests", "window", "least", "table_stride")
    places = ("scale_block_stride", "scale_slot_stride")
    numbers = {
        **dict.fromkeys((*counts, *strides, *places), "i32"),
        **dict.fromkeys(("scale", "cap"), "fp32"),
    }
    constants: dict[str, object] = {
        "SIZE": size,
        "BLOCK": triton.next_power_of_2(size),
        "BLOCK_SIZE": block_size,
        "GROUP": 4,
        "KEPT": 4,
        "ROWS": 16,
        "REQUESTS": 256,
        "TILE": walk.tile,
        "PIECES": _PIECES,
        "WINDOWED": False,
        "CAPPED": False,
        "UP": scale_up(dtype) if quantized else 0,
        "HAS_SINKS": False,
        "PDL": False,
    }
    return Specimen(
        decode_kernel,
        {**pointers, **numbers},
        constants,
        walk.num_warps,
        walk.num_stages,
        aligned=(*pointers, *strides),
        capabilities=(90,) if kind == "*fp8e4nv" else (80, 90),
    )


SPECIMENS = (
    _specimen("*bf16", torch.bfloat16),
    _specimen("*bf16", torch.bfloat16, size=80),
    _specimen("*bf16", torch.bfloat16, size=256),
    _specimen("*i8", torch.int8),
    _specimen("*fp8e4nv", torch.float8_e4m3fn),
    _specimen("*fp8e5", torch.float8_e5m2, size=64, block_size=64),
)
