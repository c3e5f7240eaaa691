# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""One token of each row by its cumulative distribution.

Chunks of a row are summed by programs of their own; one program a row then finds the chunk in which
the sum passes the number, and the token in it. The chunks are the same in any company, and so is
the token. Floor: the logits over the read bandwidth; for few rows the latency of two launches.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import Draw

_CHUNK = 4096
"""Logits that a program reads."""
_INFINITY = tl.constexpr(float("inf"))


@triton.jit
def _weight(value, most):
    """exp(value - most), at most 1 even where that says nothing."""
    return tl.exp(tl.minimum(value - most, 0.0))


@triton.jit
def draw_chunk_kernel(
    logits, largest, sums, width, chunks, stride, CHUNK: tl.constexpr, PDL: tl.constexpr
):
    """largest [R, chunks]: infinity if one is NaN; sums [R, chunks] of exp(logits - largest)."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = chunk * CHUNK + tl.arange(0, CHUNK)
    value = tl.load(logits + row * stride + column, column < width, float("-inf"))
    most = tl.max(tl.where(value != value, _INFINITY, value), 0)
    finite = tl.abs(most) < _INFINITY
    total = tl.sum(_weight(value, tl.where(finite, most, 0.0)), 0)
    tl.store(largest + row * chunks + chunk, most)
    tl.store(sums + row * chunks + chunk, tl.where(finite, total, 0.0))


@triton.jit
def draw_finish_kernel(
    logits,
    uniform,
    largest,
    sums,
    tokens,
    valid,
    width,
    chunks,
    stride,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row, of CHUNKS chunks or fewer."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    most = tl.load(largest + row * chunks + chunk, chunk < chunks, float("-inf"))
    peak = tl.max(most, 0)
    good = tl.abs(peak) < _INFINITY
    peak = tl.where(good, peak, 0.0)
    weight = tl.load(sums + row * chunks + chunk, chunk < chunks, 0.0) * _weight(most, peak)
    upto = tl.cumsum(weight, 0)
    target = tl.load(uniform + row) * tl.max(upto, 0)
    chosen = _first(chunk, weight, upto, target, CHUNKS)
    before = tl.sum(tl.where(chunk == chosen - 1, upto, 0.0), 0)

    place = tl.arange(0, CHUNK)
    column = chosen * CHUNK + place
    value = tl.load(logits + row * stride + column, column < width, float("-inf"))
    weight = _weight(value, peak)
    inside = _first(place, weight, tl.cumsum(weight, 0), target - before, CHUNK)
    tl.store(tokens + row, tl.where(good, chosen * CHUNK + inside, 0))
    tl.store(valid + row, good)


@triton.jit
def _first(place, weight, upto, target, COUNT: tl.constexpr):
    """The first place of some weight up to which there is more than the target.

    The last place of some weight if rounding leaves none; 0 if all weigh nothing.
    """
    passed = tl.min(tl.where((weight > 0) & (upto > target), place, COUNT), 0)
    last = tl.max(tl.where(weight > 0, place, 0), 0)
    return tl.minimum(passed, last)


def draw_on(*, overlapped: bool) -> Draw:
    """Implements protocols.Draw."""

    def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        rows, width = logits.shape
        device, stride = logits.device, logits.stride(0)
        chunks = triton.cdiv(width, _CHUNK)
        largest, sums = torch.empty((2, rows, chunks), dtype=torch.float32, device=device).unbind()
        tokens = torch.empty(rows, dtype=torch.int32, device=device)
        valid = torch.empty(rows, dtype=torch.bool, device=device)
        draw_chunk_kernel[(chunks, rows)](
            logits,
            largest,
            sums,
            width,
            chunks,
            stride,
            CHUNK=_CHUNK,
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )
        draw_finish_kernel[(rows,)](
            logits,
            uniform,
            largest,
            sums,
            tokens,
            valid,
            width,
            chunks,
            stride,
            CHUNK=_CHUNK,
            CHUNKS=triton.next_power_of_2(chunks),
            PDL=overlapped,
            num_warps=8,
            launch_pdl=overlapped,
        )
        return tokens, valid

    return draw


_SIZES = {"width": "i32", "chunks": "i32", "stride": "i32"}
_PARTS = {"largest": "*fp32", "sums": "*fp32"}

SPECIMENS = (
    Specimen(
        draw_chunk_kernel,
        {"logits": "*fp32", **_PARTS, **_SIZES},
        {"CHUNK": _CHUNK, "PDL": False},
        aligned=("logits", "width", "stride"),
    ),
    Specimen(
        draw_finish_kernel,
        {
            "logits": "*fp32",
            "uniform": "*fp32",
            **_PARTS,
            "tokens": "*i32",
            "valid": "*i1",
            **_SIZES,
        },
        {"CHUNK": _CHUNK, "CHUNKS": 32, "PDL": False},
        num_warps=8,
        aligned=("logits", "width", "stride"),
    ),
)
