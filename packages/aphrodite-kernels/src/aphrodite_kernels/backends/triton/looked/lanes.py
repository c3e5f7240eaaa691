# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportAssignmentType=false
"""Products of few rows with entries of eight inputs, by lanes that look up what they multiply.

A lane of a warp reads eight codes that lie side by side, and an entry is 16 bytes: what a lane
loads is its part of an operand of a tensor core, if inputs come in the same order. So nothing goes
through shared memory, books are multiplied one by one, and scales come in at the end. Points of E8P
are made of two words, whose bits are put under the exponent of 128 (bfloat16) or 1024 (float16).

Floor: the packed bytes over the read bandwidth; of tables that no first-level cache holds, a sector
of the second-level cache for every entry.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.dense import first_of
from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.decode import made_in
from aphrodite_kernels.backends.triton.looked.entries import (
    across_rows,
    entries_of,
    inputs_of,
    points_of,
    width_of,
)
from aphrodite_kernels.backends.triton.looked.frame import PROCESSORS, summed
from aphrodite_kernels.backends.triton.specimen import Specimen


@triton.jit
def inputs_at(
    inputs, there, rows, row, x_stride,
    EIGHTS: tl.constexpr, WARPS: tl.constexpr, WIDTH: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Operands B of each eight rows."""
    rights = ()
    for eight in tl.static_range(EIGHTS):
        kept = there & (row + eight * 8 < rows)
        x = tl.load(inputs + eight * 8 * x_stride, kept, 0.0).to(DTYPE)
        rights += (inputs_of(x, WARPS, WIDTH),)
    return rights


@triton.jit
def book_sums(
    total, codes, table, at, there, inputs, start, last, rows, row, x_stride,
    ENTRIES: tl.constexpr, TILES: tl.constexpr, EIGHTS: tl.constexpr, WARPS: tl.constexpr,
    WHOLE: tl.constexpr, DTYPE: tl.constexpr, EMULATE: tl.constexpr,
):  # fmt: skip
    """`total` and the products of one turn with a book."""
    WIDTH: tl.constexpr = width_of(codes.dtype.element_ty)
    MASK: tl.constexpr = 255 if codes.dtype.element_ty == tl.uint8 else 65535
    code = ()
    for half in tl.static_range(2 * TILES):
        code += (tl.load(codes + at[half], there, 0).to(tl.int32) & MASK,)
    for place in tl.static_range(8):
        inside = start + (0 if WHOLE else place) < last
        rights = inputs_at(
            inputs + place * 8, inside, rows, row, x_stride, EIGHTS, WARPS, WIDTH, DTYPE
        )
        sums = ()
        for tile in tl.static_range(TILES):
            if ENTRIES == 0:
                first = points_of(code[2 * tile], table, place, DTYPE, EMULATE)
                second = points_of(code[2 * tile + 1], table, place, DTYPE, EMULATE)
            else:
                first = entries_of(code[2 * tile], table, place, DTYPE)
                second = entries_of(code[2 * tile + 1], table, place, DTYPE)
            left = across_rows(tl.join(first, second), WARPS, WIDTH)
            for eight in tl.static_range(EIGHTS):
                part = total[tile * EIGHTS + eight]
                sums += (tl.dot(left, rights[eight], part, input_precision="ieee"),)
        total = sums
    return total


@triton.jit
def stack_sums(
    total, parts, at, there, inputs, turn, start, last, rows, row, x_stride,
    STACK: tl.constexpr, SPEC: tl.constexpr, TILES: tl.constexpr, EIGHTS: tl.constexpr,
    WARPS: tl.constexpr, WHOLE: tl.constexpr, DTYPE: tl.constexpr, EMULATE: tl.constexpr,
):  # fmt: skip
    """`total` and the products of one turn with all books of a stack."""
    COUNT: tl.constexpr = SPEC.counts[STACK]
    ENTRIES: tl.constexpr = SPEC.entries[STACK]
    size = parts[0].to(tl.int64) * parts[1]
    for book in range(COUNT):
        codes = parts[3 + 2 * STACK] + (turn + book * size)
        table = parts[4 + 2 * STACK] + book * (ENTRIES * 8)
        total = book_sums(
            total, codes, table, at, there, inputs, start, last, rows, row, x_stride,
            ENTRIES, TILES, EIGHTS, WARPS, WHOLE, DTYPE, EMULATE,
        )  # fmt: skip
    return total


@triton.jit
def zeros(COUNT: tl.constexpr, WARPS: tl.constexpr):
    """COUNT sums of 16 outputs for eight rows."""
    total = ()
    for _ in tl.static_range(COUNT):
        total += (tl.zeros((WARPS, 16, 8), tl.float32),)
    return total


@triton.jit
def stored(
    total, more, parts, bias, out, first, first_row, rows, outputs,
    SPEC: tl.constexpr, EIGHTS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """16 outputs from `first` on; total and more: of both stacks for each eight rows."""
    n = first + tl.arange(0, 16)
    kept = n < outputs
    for eight in tl.static_range(EIGHTS):
        result = tl.sum(total[eight], 0) * SPEC.units[0]
        if SPEC.counts[1]:
            result += tl.sum(more[eight], 0) * SPEC.units[1]
        if SPEC.scaled:
            result *= tl.load(parts[2] + n, kept, 0.0).to(tl.float32)[:, None]
        if HAS_BIAS:
            result += tl.load(bias + n, kept, 0.0)[:, None]
        t = first_row + eight * 8 + tl.arange(0, 8)
        to = out + (tl.program_id(1).to(tl.int64) * rows + t)[None, :] * outputs + n[:, None]
        tl.store(to, result.to(out.dtype.element_ty), kept[:, None] & (t < rows)[None, :])


@triton.jit(do_not_specialize=["rows", "share"])
def lanes_kernel(
    x,
    parts,
    bias,
    out,
    rows,
    outputs,
    x_stride,
    share,
    SPEC: tl.constexpr,
    TILES: tl.constexpr,
    EIGHTS: tl.constexpr,
    WARPS: tl.constexpr,
    WHOLE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EMULATE: tl.constexpr,
):
    """out[s, t, n]: of the s-th `share` turns of codes, 16 TILES outputs for 8 EIGHTS rows.

    parts: those of `decode_vectors`. WHOLE: a row has a multiple of 8 codes.
    """
    LANES: tl.constexpr = 32 * WARPS
    DTYPE: tl.constexpr = made_in(x.dtype.element_ty, EMULATE)
    across = parts[1]
    lane = tl.arange(0, LANES)
    first_output = tl.program_id(0) * (16 * TILES)
    first_row = tl.program_id(2) * (8 * EIGHTS)
    row = first_row + (lane % 32 // 4)[:, None]
    own = (lane // 32 * 32 + lane % 4 * 8)[:, None]
    eight = tl.arange(0, 8)[None, :]
    inputs = x + row.to(tl.int64) * x_stride + (own * 8 + eight)
    at = ()
    for half in tl.static_range(2 * TILES):
        n = tl.minimum(first_output + half * 8 + lane % 32 // 4, outputs - 1)
        at += (n.to(tl.int64)[:, None] * across + (own + eight),)
    total = zeros(EIGHTS * TILES, WARPS)
    more = zeros(EIGHTS * TILES if SPEC.counts[1] else 0, WARPS)
    first = tl.program_id(1) * share * LANES
    last = min(first + share * LANES, across)
    for turn in range(first, last, LANES):
        start = turn + own
        there = tl.broadcast_to(start < last, (LANES, 8)) if WHOLE else start + eight < last
        total = stack_sums(
            total, parts, at, there, inputs + turn * 8, turn, start, last, rows, row, x_stride,
            0, SPEC, TILES, EIGHTS, WARPS, WHOLE, DTYPE, EMULATE,
        )  # fmt: skip
        if SPEC.counts[1]:
            more = stack_sums(
                more, parts, at, there, inputs + turn * 8, turn, start, last, rows, row, x_stride,
                1, SPEC, TILES, EIGHTS, WARPS, WHOLE, DTYPE, EMULATE,
            )  # fmt: skip
    for tile in tl.static_range(TILES):
        stored(
            total[tile * EIGHTS : (tile + 1) * EIGHTS], more[tile * EIGHTS : (tile + 1) * EIGHTS],
            parts, bias, out, first_output + tile * 16, first_row, rows, outputs,
            SPEC, EIGHTS, HAS_BIAS,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lanes:
    """How programs share the work."""

    tiles: int = 1
    """Of 16 outputs, that share inputs."""
    warps: int = 8
    """Of a program, that share K."""
    resident: int = 2
    """Programs for each processor that share K where outputs alone make fewer."""


LANES: Mapping[int, Lanes] = {4: Lanes(1), 16: Lanes(2)}
"""By the largest number of rows, by the times of an H200.

Four tiles are up to a tenth faster from nine rows on, but take minutes to compile.
"""

FAR = 4
"""Rows up to which lanes look up books of more than NEAR entries.

Beyond, the cache that brings them has to bring too many inputs: blocks, by way of shared memory,
ask for those once.
"""

NEAR = 256
"""Entries that the first-level cache holds."""

_INTERPRETED = Lanes(2, 16, 1)
"""The interpreter pays for programs alone."""


def lanes_for(rows: int, entries: tuple[int, int]) -> Lanes | None:
    """The fastest for so many rows by books of so many entries; None: blocks are faster."""
    if rows > (max(LANES) if max(entries) <= NEAR else FAR):
        return None
    return _INTERPRETED if interpreted() else first_of(LANES, rows)


def lanes_product(x: Tensor, weight: Any, bias: Tensor | None, lanes: Lanes) -> Tensor:
    """x [T, K] Wᵀ (+ bias), of `LookedVectors` whose entries are eight inputs."""
    (rows, _), outputs, across = x.shape, weight.out_features, weight.parts[1]
    tiles = triton.cdiv(outputs, 16 * lanes.tiles)
    turns = triton.cdiv(across, 32 * lanes.warps)
    share = triton.cdiv(turns, max(1, PROCESSORS * lanes.resident // tiles))
    shares = triton.cdiv(turns, share)
    eights = 1 if rows <= 8 else 2
    whole = shares == 1
    shape, dtype = (shares, rows, outputs), x.dtype if whole else torch.float32
    out = torch.empty(shape, dtype=dtype, device=x.device)
    lanes_kernel[(tiles, shares, triton.cdiv(rows, 8 * eights))](
        x,
        weight.parts,
        bias if whole else None,
        out,
        rows,
        outputs,
        x.stride(0),
        share,
        SPEC=weight.spec,
        TILES=lanes.tiles,
        EIGHTS=eights,
        WARPS=lanes.warps,
        WHOLE=across % 8 == 0,
        HAS_BIAS=whole and bias is not None,
        EMULATE=interpreted(),
        num_warps=lanes.warps,
        num_stages=1,
    )
    return out[0] if whole else summed(out, bias, None, x.dtype)


def lanes_specimen(spec: Any, types: tuple[str, ...], rows: int) -> Specimen:
    """The kernel for weights of a kind and so many rows; types: of what it reads."""
    lanes = first_of(LANES, rows)
    sizes = dict.fromkeys(("rows", "outputs", "x_stride", "share"), "i32")
    constants = {"SPEC": spec, "TILES": lanes.tiles, "EIGHTS": 1 if rows <= 8 else 2}
    constants |= {"WARPS": lanes.warps, "WHOLE": True, "HAS_BIAS": False, "EMULATE": False}
    read = (f"parts.{i}" for i in range(1, len(types)))
    return Specimen(
        lanes_kernel,
        {"x": "*bf16", "parts": types, "bias": "*fp32", "out": "*bf16", **sizes},
        constants,
        lanes.warps,
        1,
        aligned=("x", "bias", "out", "outputs", "x_stride", *read),
    )
