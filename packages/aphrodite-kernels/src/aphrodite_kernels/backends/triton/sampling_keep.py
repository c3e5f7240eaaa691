# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Removing tokens on one side of a limit of each row. Floor: the logits in and out.

Where the limit hangs on the row's largest number, a program has a whole row, which it reads twice;
a processor reads a row in 5 us.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.sampling_rows import WARPS, change_rows, row_specimen
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.sampling_protocols import KeepNear, LeastFrom

_CHUNK = 4096
"""Logits that a program treats at a time."""


@triton.jit(do_not_specialize=["limit", "limit_stride"])
def keep_kernel(
    logits,
    limit,
    width,
    stride,
    limit_stride,
    ABOVE: tl.constexpr,
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    """In place: a chunk of logits, those below the row's limit; ABOVE: those above it."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    there = column < width
    place = logits + row * stride + column
    value = tl.load(place, there, 0.0)
    edge = tl.load(limit + row * limit_stride)
    goes = value > edge if ABOVE else value < edge
    tl.store(place, tl.where(goes, float("-inf"), value), there)


@triton.jit(do_not_specialize=["gap", "gap_stride"])
def keep_near_kernel(
    logits, gap, width, stride, gap_stride, CHUNK: tl.constexpr, PDL: tl.constexpr
):
    """In place, one row: those below its largest plus the gap."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    slot = tl.arange(0, CHUNK)
    reach = tl.load(gap + number * gap_stride)
    if reach > float("-inf"):
        most = tl.full((CHUNK,), float("-inf"), tl.float32)
        for start in tl.range(0, width, CHUNK, num_stages=4):
            value = tl.load(row + start + slot, start + slot < width, float("-inf"))
            most = tl.maximum(most, value)
        least = tl.max(most, 0) + reach
        for start in tl.range(0, width, CHUNK, num_stages=4):
            there = start + slot < width
            value = tl.load(row + start + slot, there, 0.0)
            tl.store(row + start + slot, tl.where(value < least, float("-inf"), value), there)


@triton.jit(do_not_specialize=["threshold", "threshold_stride"])
def least_from_kernel(
    logits,
    threshold,
    out,
    width,
    stride,
    threshold_stride,
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row: its smallest number from the threshold up, -inf never."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    slot = tl.arange(0, CHUNK)
    edge = tl.load(threshold + number * threshold_stride)
    least = tl.full((CHUNK,), float("inf"), tl.float32)
    for start in tl.range(0, width, CHUNK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        counts = (value >= edge) & (value > float("-inf"))
        least = tl.minimum(least, tl.where(counts, value, float("inf")))
    tl.store(out + number, tl.min(least, 0))


def keep_on(*, above: bool, overlapped: bool) -> Callable[[Tensor, Tensor], None]:
    """Implements protocols.Keep; above: protocols.KeepUpTo."""

    def keep(logits: Tensor, limit: Tensor) -> None:
        rows, width = logits.shape
        keep_kernel[(triton.cdiv(width, _CHUNK), rows)](
            logits,
            limit,
            width,
            logits.stride(0),
            limit.stride(0),
            ABOVE=above,
            CHUNK=_CHUNK,
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )

    return keep


def keep_near_on(*, overlapped: bool) -> KeepNear:
    """Implements protocols.KeepNear."""

    def keep_near(logits: Tensor, gap: Tensor) -> None:
        change_rows(keep_near_kernel, logits, gap, CHUNK=_CHUNK, overlapped=overlapped)

    return keep_near


def least_from_on(*, overlapped: bool) -> LeastFrom:
    """Implements protocols.LeastFrom."""

    def least_from(logits: Tensor, threshold: Tensor) -> Tensor:
        rows, width = logits.shape
        out = torch.empty((rows, 1), dtype=torch.float32, device=logits.device)
        least_from_kernel[(rows,)](
            logits,
            threshold,
            out,
            width,
            logits.stride(0),
            threshold.stride(0),
            CHUNK=_CHUNK,
            PDL=overlapped,
            num_warps=WARPS,
            launch_pdl=overlapped,
        )
        return out

    return least_from


def _types(column: str) -> dict[str, str]:
    return {column: "*fp32", f"{column}_stride": "i32"}


def _keep_specimen(*, above: bool) -> Specimen:
    types = {"logits": "*fp32", "width": "i32", "stride": "i32", **_types("limit")}
    constants: dict[str, object] = {"CHUNK": _CHUNK, "ABOVE": above, "PDL": False}
    return Specimen(keep_kernel, types, constants, aligned=("logits", "width", "stride"))


SPECIMENS = (
    _keep_specimen(above=False),
    _keep_specimen(above=True),
    row_specimen(keep_near_kernel, _types("gap"), CHUNK=_CHUNK),
    row_specimen(least_from_kernel, {**_types("threshold"), "out": "*fp32"}, CHUNK=_CHUNK),
)
