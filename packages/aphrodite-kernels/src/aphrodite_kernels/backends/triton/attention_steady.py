# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""Attention that rounds a row alike in any company, however its prompt is cut into steps.

The keys that a query sees are cut into at most PARTS shares at multiples of a length that follows
from the query's own position. A share is walked in tiles of fixed positions with a running softmax;
shares are merged in order of position (arXiv 2205.14135). Where few requests have one query each, a
program walks one share and another kernel merges them; otherwise a program walks and merges all
shares of ROWS rows (row r is query r // GROUP, head r % GROUP of the group). All round alike: rows
of a tile never mix, keys that a row does not see add exact zeros, and so does an empty run.
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
from aphrodite_kernels.backends.triton.attention_prefill import request_of
from aphrodite_kernels.backends.triton.attention_shares import share_of, shares_of, walk
from aphrodite_kernels.backends.triton.attention_tile import (
    empty_run,
    finish,
    fitted,
    merged,
    scale_up,
)
from aphrodite_kernels.backends.triton.specimen import Specimen

_REQUESTS = 256
"""Requests that a program looks at together for its own."""
_TILE = 64
"""Positions a step."""
_PARTS = 16
_SHARE = 256
"""Positions of the shortest share, a multiple of a tile."""
_ENOUGH = 256
"""Programs that keep a device busy without shares of a request."""


@triton.jit(do_not_specialize=VARYING)
def steady_kernel(
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
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    REQUESTS: tl.constexpr,
    PARTS: tl.constexpr,
    SHARE: tl.constexpr,
    SINGLE: tl.constexpr,
    SPLIT: tl.constexpr,
    WINDOWED: tl.constexpr,
    CAPPED: tl.constexpr,
    UP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """KV head program_id(0) of a slot program_id(1), or SINGLE of a request with one query, to out.

    SPLIT, only if SINGLE: share program_id(2) of it, to partials [T, H, PARTS, SIZE + 2].
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    head = tl.program_id(0)
    if SINGLE:
        request = tl.program_id(1)
        tile = 0
    else:
        request, tile = request_of(tl.program_id(1), query_starts, requests, GROUP, ROWS, REQUESTS)
    begin = tl.load(query_starts + request)
    count = tl.load(query_starts + request + 1) - begin
    before = tl.load(seq_lens + request) - count
    row = tile * ROWS + tl.arange(0, ROWS)
    number = row // GROUP
    position = before + tl.minimum(number, count - 1)
    first = before + tile * ROWS // GROUP
    last = before + tl.minimum((tile * ROWS + ROWS - 1) // GROUP, count - 1)
    lowest = tl.maximum(first - window + 1, 0) if WINDOWED else 0
    start = lowest // TILE * TILE
    end = last + 1
    share, beyond = 0, 1
    if SINGLE:
        length, share, beyond = shares_of(lowest, last, PARTS, SHARE, SPLIT)
    else:
        earliest = tl.maximum(position - window + 1, 0) if WINDOWED else 0
        length = share_of(earliest, position, PARTS, SHARE)
    if (tile * ROWS < count * GROUP) & (share < beyond):
        member = head * GROUP + row % GROUP
        column = tl.arange(0, BLOCK)[None, :]
        there = (number < count)[:, None] & (column < SIZE)
        token = (begin + number).to(tl.int64)
        place = token * q_strides[0] + member * q_strides[1]
        query, factor = fitted(tl.load(q + place[:, None] + column, there, 0.0), scale, UP)
        top, total, values = empty_run(ROWS, BLOCK)
        for at in tl.range(share, beyond):
            part_top, part_total, part_values = walk(
                query,
                position,
                tl.maximum(start, at * length) if SINGLE else start,
                tl.minimum(end, at * length + length) if SINGLE else end,
                lowest,
                length,
                cache,
                strides,
                head,
                block_tables + request.to(tl.int64) * table_stride,
                window,
                factor,
                cap,
                SIZE,
                BLOCK_SIZE,
                TILE,
                SHARE,
                SINGLE,
                WINDOWED,
                CAPPED,
                UP,
            )
            top, total, values = merged(top, total, values, part_top, part_total, part_values)
        member_of_all = token * (tl.num_programs(0) * GROUP) + member
        if SPLIT:
            kept = partials + (member_of_all * PARTS + tl.program_id(2)) * (SIZE + 2)
            tl.store(kept[:, None] + column, values, there)
            tl.store(kept + SIZE, top, number < count)
            tl.store(kept + SIZE + 1, total, number < count)
        else:
            rows = out + member_of_all * SIZE
            finish(top, total, values, rows, sinks, member, number < count, SIZE, UP, HAS_SINKS)


@triton.jit(do_not_specialize=["seq_lens", "window"])
def merge_kernel(
    partials,
    seq_lens,
    sinks,
    out,
    window,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUP: tl.constexpr,
    KEPT: tl.constexpr,
    PARTS: tl.constexpr,
    SHARE: tl.constexpr,
    WINDOWED: tl.constexpr,
    UP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Shares of request program_id(1) and KV head program_id(0) to out."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    request = tl.program_id(1)
    row = tl.arange(0, KEPT)
    member = tl.program_id(0) * GROUP + row
    column = tl.arange(0, BLOCK)[None, :]
    kept = row < GROUP
    there = kept[:, None] & (column < SIZE)
    last = tl.load(seq_lens + request) - 1
    lowest = tl.maximum(last - window + 1, 0) if WINDOWED else 0
    length = share_of(lowest, last, PARTS, SHARE)
    member_of_all = request.to(tl.int64) * (tl.num_programs(0) * GROUP) + member
    top, total, values = empty_run(KEPT, BLOCK)
    for part in tl.range(last // length - lowest // length + 1):
        here = partials + (member_of_all * PARTS + part) * (SIZE + 2)
        top, total, values = merged(
            top,
            total,
            values,
            tl.load(here + SIZE, kept, 0.0),
            tl.load(here + SIZE + 1, kept, 1.0),
            tl.load(here[:, None] + column, there, 0.0),
        )
    rows = out + member_of_all * SIZE
    finish(top, total, values, rows, sinks, member, kept, SIZE, UP, HAS_SINKS)


def steady_attention(
    q: Tensor,
    cache: KVCache,
    meta: AttentionMeta,
    spec: AttentionSpec,
    out: Tensor,
    *,
    overlapped: bool = False,
) -> None:
    """Attention of q [T, H, D] into out [T, H, D], contiguous."""
    tokens, heads, size = q.shape
    pairs, requests = cache.key.shape[2], len(meta.seq_lens)
    kept = triton.next_power_of_2(heads // pairs)
    rows = max(16, kept)
    single = tokens == requests and meta.max_query == 1
    split = single and pairs * requests < _ENOUGH
    partials = None
    if split:
        shares = min(_PARTS, triton.cdiv(meta.max_seq, _SHARE) + 1)
        places = tokens * heads * _PARTS * (size + 2)
        partials = torch.empty(places, dtype=torch.float32, device=q.device)
        grid = (pairs, requests, shares)
    elif single:
        grid = (pairs, requests, 1)
    else:
        grid = (pairs, tokens * heads // pairs // rows + requests, 1)
    shape = constants(q, cache, spec, overlapped=overlapped) | {"UP": scale_up(cache.key.dtype)}
    steady_kernel[grid](
        *arguments(q, cache, meta, spec, out),
        partials,
        ROWS=rows,
        TILE=_TILE,
        REQUESTS=_REQUESTS,
        PARTS=_PARTS,
        SHARE=_SHARE,
        SINGLE=single,
        SPLIT=split,
        num_warps=4,
        num_stages=_stages(size, cache.key.itemsize),
        **shape,
    )
    if split:
        names = ("SIZE", "BLOCK", "GROUP", "WINDOWED", "UP", "HAS_SINKS", "PDL", "launch_pdl")
        merge_kernel[(pairs, requests)](
            partials,
            meta.seq_lens,
            spec.sinks,
            out,
            spec.window or 0,
            KEPT=kept,
            PARTS=_PARTS,
            SHARE=_SHARE,
            **{name: shape[name] for name in names},
        )


def _stages(size: int, itemsize: int) -> int:
    """As many as memory holds: with five, two tiles are on their way."""
    return 5 if size * itemsize <= 512 else 3


def _specimen(
    dtype: torch.dtype, *, split: bool = False, single: bool = False, size: int = 128
) -> Specimen:
    own = {"partials": "*fp32"} if split else {}
    constants: dict[str, object] = {
        "ROWS": 16,
        "TILE": _TILE,
        "REQUESTS": _REQUESTS,
        "PARTS": _PARTS,
        "SHARE": _SHARE,
        "SINGLE": single,
        "SPLIT": split,
        "UP": scale_up(dtype),
    }
    return specimen(steady_kernel, dtype, own, constants, (4, _stages(size, dtype.itemsize)), size)


SPECIMENS = (
    _specimen(torch.bfloat16, split=True, single=True),
    _specimen(torch.bfloat16, single=True),
    _specimen(torch.bfloat16),
    _specimen(torch.bfloat16, size=256),
    _specimen(torch.int8),
    _specimen(torch.uint8),
    Specimen(
        merge_kernel,
        {"partials": "*fp32", "seq_lens": "*i32", "out": "*bf16", "window": "i32"},
        dict.fromkeys(("WINDOWED", "HAS_SINKS", "PDL"), False)
        | {"SIZE": 128, "BLOCK": 128, "GROUP": 4, "KEPT": 4, "UP": 0}
        | {"PARTS": _PARTS, "SHARE": _SHARE},
        aligned=("partials", "out"),
    ),
)
