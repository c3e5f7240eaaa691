# pyright: basic
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false
"""Where programs that share a request's keys leave partials, for the last of them to merge."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.attention_tile import LOWEST

_FLOATS = 1 << 22
"""Of the partials: 16 MiB."""
_HEADS = 1 << 16
"""Requests times KV heads of a step."""


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
    top = tl.full((KEPT,), LOWEST, tl.float32)
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
