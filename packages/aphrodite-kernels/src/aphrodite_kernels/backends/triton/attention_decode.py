# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""Attention of requests with one query, over the paged cache.

For one KV head, the tiles of TILE positions of all such requests form one line, which is cut into
equal shares, one per program and KV head (as stream-K cuts a product, arXiv 2301.03598): however
unequal the contexts are, all processors are busy to the end. Lengths are read on the device. A
program walks the pieces of requests in its share; a request that lies in several shares leaves a
partial per piece, and the last program to arrive merges them in order of position (arXiv
2205.14135, 2311.01282). All query heads of a KV head are rows of one tile, padded to 16. Where one
warp has room for it, it is a program that folds its tiles (`attention_folded`). Neighbouring
programs read neighbouring heads of the same positions.

Programs that start while the kernel before still runs crowd on the processors that are free first,
which many keys do not forgive: 256 contexts of 640 took 203 us a layer of a step, and take 170.

Floor: the keys and values of all contexts, once, over the read bandwidth.
"""

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
from aphrodite_kernels.backends.triton.attention_folded import key_order, walk_folded
from aphrodite_kernels.backends.triton.attention_meeting import Meeting, leave, merge
from aphrodite_kernels.backends.triton.attention_tile import (
    attend,
    empty_run,
    finish,
    fitted,
    kept,
    scale_up,
)
from aphrodite_kernels.backends.triton.attention_walks import (
    Walk,
    folded_walk,
    plain_walk,
    walk_for,
)
from aphrodite_kernels.backends.triton.paged import place_of, scale_place_of
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError

_EARLY = 2
"""KV heads of requests for each processor up to which programs start early. 32 contexts of 64 lose
40 us of a step without (H200)."""
_REQUESTS = (32, 256)
"""Numbers of requests for which there is a kernel; beyond, one for each power of two."""


@triton.jit
def walk_piece(
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
    """The run over tiles [first, last) of a request, for one KV head."""
    key = cache.key + head * strides.head
    value = cache.value + head * strides.head
    top, total, values = empty_run(query.shape[0], query.shape[1])
    for tile in tl.range(first, last):
        position = tile * TILE + tl.arange(0, TILE)
        seen = position < seq_len
        if WINDOWED:
            seen &= position >= seq_len - window
        block = tl.load(table + position // BLOCK_SIZE, seen, 0)
        inside = position % BLOCK_SIZE
        place = place_of(block, inside, strides)
        k_scale = 1.0
        v_scale = 1.0
        if UP:
            scale_place = scale_place_of(block, inside, strides)
            k_scale = tl.load(cache.key_scale + head + scale_place, seen, 0.0)
            v_scale = tl.load(cache.value_scale + head + scale_place, seen, 0.0)
        top, total, values = attend(
            query,
            kept(key, place, seen, SIZE, query.shape[1]),
            kept(value, place, seen, SIZE, query.shape[1]),
            k_scale,
            v_scale,
            seen[None, :],
            scale,
            cap,
            top,
            total,
            values,
            CAPPED,
            UP,
        )
    return top, total, values


@triton.jit
def put(
    top,
    total,
    values,
    out,
    sinks,
    head,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    UP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Write a KV head's rows to out [H, SIZE]."""
    row = tl.arange(0, top.shape[0])
    member = head * GROUP + row
    finish(top, total, values, out + member * SIZE, sinks, member, row < GROUP, SIZE, UP, HAS_SINKS)


@triton.jit(do_not_specialize=[*VARYING, "least"])
def decode_kernel(
    q,
    out,
    sinks,
    block_tables,
    seq_lens,
    query_starts,
    requests,
    table_stride,
    window,
    scale,
    cap,
    q_strides,
    cache,
    strides,
    partials,
    arrivals,
    least,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    KEPT: tl.constexpr,
    ROWS: tl.constexpr,
    REQUESTS: tl.constexpr,
    TILE: tl.constexpr,
    FOLDED: tl.constexpr,
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
    last_request = tl.where(begin < end, tl.sum((upto < end).to(tl.int32)), first_request - 1)
    start = tl.sum(tl.where(every < first_request, counts, 0))
    row = tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    if FOLDED:
        column = key_order(BLOCK, cache.key.dtype.element_ty.primitive_bitwidth // 8)[None, :]
    walk: tl.constexpr = walk_folded if FOLDED else walk_piece
    for request in tl.range(first_request, last_request + 1):
        count = tiles_of(
            request, request < requests, seq_lens, query_starts, window, TILE, WINDOWED
        )
        if count > 0:
            seq_len = tl.load(seq_lens + request)
            token = tl.load(query_starts + request).to(tl.int64)
            place = q + token * q_strides[0] + (head * GROUP + row) * q_strides[1] + column
            query = tl.load(place, (row < GROUP) & (column < SIZE), 0.0)
            query, factor = fitted(query, scale, UP)
            skipped = tl.maximum(seq_len - window, 0) // TILE if WINDOWED else 0
            first = tl.maximum(begin - start, 0)
            last = tl.minimum(end - start, count)
            top, total, values = walk(
                query,
                cache,
                strides,
                head,
                block_tables + request * table_stride,
                skipped + first,
                skipped + last,
                seq_len,
                window,
                factor,
                cap,
                SIZE,
                BLOCK_SIZE,
                TILE,
                WINDOWED,
                CAPPED,
                UP,
            )
            rows = out + token * (heads * GROUP * SIZE)
            if last - first == count:
                put(top, total, values, rows, sinks, head, GROUP, SIZE, UP, HAS_SINKS)
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
                    put(peak, sums, whole, rows, sinks, head, GROUP, SIZE, UP, HAS_SINKS)
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


def looked_at(requests: int) -> int:
    """Requests that a program looks at to find its share: of few kinds, each compiled once."""
    beyond = 1 << (requests - 1).bit_length()
    return next((most for most in _REQUESTS if requests <= most), beyond)


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
    key = cache.key
    (_, heads, size), pairs, requests = q.shape, key.shape[2], len(meta.seq_lens)
    group = heads // pairs
    walk = walk or walk_for(
        size, key.dtype, group, cache.block_size, requests * pairs, meeting.processors
    )
    held = triton.next_power_of_2(group)
    tiles = requests * triton.cdiv(meta.max_seq, walk.tile)
    shares = min(
        max(1, meeting.processors * walk.resident // pairs),
        triton.cdiv(tiles, walk.least),
        meeting.partials.numel() // (2 * pairs * held * (size + 2)),
    )
    if requests * pairs > len(meeting.arrivals) or shares == 0:
        raise ShapeError(
            f"decoding {requests} requests of {heads} heads of {size}, {pairs} KV heads: more than "
            f"{len(meeting.arrivals)} heads in all, or no room for the partials of one share; "
            "run fewer requests at once"
        )
    settings = constants(q, cache, spec, overlapped=overlapped)
    settings["launch_pdl"] &= requests * pairs <= _EARLY * meeting.processors
    decode_kernel[(pairs, shares)](
        *arguments(q, cache, meta, spec, out),
        meeting.partials,
        meeting.arrivals,
        walk.least,
        KEPT=held,
        ROWS=walk.rows(group),
        REQUESTS=looked_at(requests),
        TILE=walk.tile,
        FOLDED=walk.folded,
        PIECES=walk.pieces(held, size),
        UP=scale_up(key.dtype),
        num_warps=walk.num_warps,
        num_stages=walk.num_stages,
        **settings,
    )


def _specimen(
    dtype: torch.dtype,
    size: int = 128,
    block_size: int = 16,
    group: int = 4,
    walk: Walk | None = None,
) -> Specimen:
    walk = walk or walk_for(size, dtype, group, block_size, 1, 132)
    own = {"partials": "*fp32", "arrivals": "*i32", "least": "i32"}
    held = triton.next_power_of_2(group)
    constants: dict[str, object] = {
        "GROUP": group,
        "KEPT": held,
        "ROWS": walk.rows(group),
        "REQUESTS": 256,
        "TILE": walk.tile,
        "FOLDED": walk.folded,
        "PIECES": walk.pieces(held, size),
        "UP": scale_up(dtype),
    }
    launched = walk.num_warps, walk.num_stages
    return specimen(decode_kernel, dtype, own, constants, launched, size, block_size)


SPECIMENS = (
    _specimen(torch.bfloat16),
    _specimen(torch.bfloat16, walk=plain_walk(128, 2, 4, crowded=True)),
    _specimen(torch.bfloat16, size=80),
    _specimen(torch.bfloat16, size=256),
    _specimen(torch.bfloat16, group=8, walk=folded_walk(2, 8)),
    _specimen(torch.bfloat16, size=80, walk=folded_walk(2, 4)),
    _specimen(torch.int8),
    _specimen(torch.int8, group=16),
    _specimen(torch.int8, group=32),
    _specimen(torch.uint8),
    _specimen(torch.float8_e4m3fn),
    _specimen(torch.float8_e5m2, size=64, block_size=64),
)
