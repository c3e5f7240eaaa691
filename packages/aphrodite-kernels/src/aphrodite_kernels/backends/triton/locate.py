# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""What a step reads of the rows that it computes: the first kernel of every step.

A program takes one token and one request. Floor: the latency of a launch.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import Locate, Located

_BLOCK = 1024
_VARYING = ("rows", "owners", "positions", "many_tokens", "many_rows")
"""Compiled alike for all: parts of one array, and how many there are."""


@triton.jit(do_not_specialize=_VARYING)
def locate_kernel(
    rows,
    owners,
    positions,
    tokens,
    tables,
    found_tokens,
    found_slots,
    found_tables,
    many_tokens,
    many_rows,
    tokens_stride,
    group_stride,
    table_stride,
    width,
    GROUPS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """found_tokens [T], found_slots [GROUPS, T], found_tables [GROUPS, B, width] of rows [B], and
    owners and positions [T].
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    place = tl.program_id(0)
    if place < many_tokens:
        owner = tl.load(owners + place).to(tl.int64)
        at = tl.load(positions + place)
        tl.store(found_tokens + place, tl.load(tokens + owner * tokens_stride + at))
        for group in tl.static_range(GROUPS):
            table = tables + group * group_stride + owner * table_stride
            block = tl.load(table + at // BLOCK_SIZE).to(tl.int64)
            slot = block * BLOCK_SIZE + at % BLOCK_SIZE
            tl.store(found_slots + group * many_tokens + place, slot)
    if place < many_rows:
        row = tl.load(rows + place).to(tl.int64)
        for group in tl.static_range(GROUPS):
            table = tables + group * group_stride + row * table_stride
            found = found_tables + (group * many_rows + place).to(tl.int64) * width
            for first in tl.range(0, width, BLOCK):
                column = first + tl.arange(0, BLOCK)
                blocks = tl.load(table + column, column < width)
                tl.store(found + column, blocks, column < width)


def locate_on(*, overlapped: bool) -> Locate:
    """Implements protocols.Locate."""

    def locate(
        rows: Tensor,
        owners: Tensor,
        positions: Tensor,
        tokens: Tensor,
        tables: Tensor,
        block_size: int,
    ) -> Located:
        groups, _, width = tables.shape
        found = Located(
            tokens=torch.empty_like(positions),
            slots=positions.new_empty((groups, len(positions)), dtype=torch.int64),
            tables=rows.new_empty((groups, len(rows), width)),
        )
        locate_kernel[(max(len(positions), len(rows)),)](
            rows,
            owners,
            positions,
            tokens,
            tables,
            *found,
            len(positions),
            len(rows),
            tokens.stride(0),
            *tables.stride()[:2],
            width,
            GROUPS=groups,
            BLOCK_SIZE=block_size,
            BLOCK=min(_BLOCK, triton.next_power_of_2(width)),
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )
        return found

    return locate


_NUMBERS = ("many_tokens", "many_rows", "tokens_stride", "group_stride", "table_stride", "width")
SPECIMENS = tuple(
    Specimen(
        locate_kernel,
        {
            **dict.fromkeys(("rows", "owners", "positions", "tokens", "tables"), "*i32"),
            "found_tokens": "*i32",
            "found_slots": "*i64",
            "found_tables": "*i32",
            **dict.fromkeys(_NUMBERS, "i32"),
        },
        {"GROUPS": groups, "BLOCK_SIZE": 64, "BLOCK": block, "PDL": False},
        num_warps=4,
    )
    for groups, block in ((1, 64), (2, _BLOCK))
)
