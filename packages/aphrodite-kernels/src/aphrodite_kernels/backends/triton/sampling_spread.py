# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""What rows of logits are like: a program has a whole row.

Each of its slots adds up few numbers in float32, relative to the row's largest; the slots' sums are
added in float64. Floor: the logits in, once from memory; they are read 2 or 3 times.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.sampling_rows import WARPS, row_specimen
from aphrodite_kernels.sampling_protocols import Deviation, Uncertainty

BLOCK = 4096
"""Slots of a row: with 16 warps a thread holds 8."""
INFINITY = tl.constexpr(float("inf"))
_FAR = tl.constexpr(-1e4)
"""Relative to the largest: weights are 0 there, and so are they times this."""


@triton.jit
def peak_of(row, slot, width, BLOCK: tl.constexpr):
    """The largest number of a row; infinity if one is NaN."""
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        most = tl.maximum(most, tl.where(value != value, INFINITY, value))
    return tl.max(most, 0)


@triton.jit
def weigh_row(row, slot, width, peak, BLOCK: tl.constexpr):
    """Of exp(number - peak) the sum, float64; and the mean of number - peak so weighted.

    Both 0 if no number is above -inf. A peak that is not the largest: some finite numbers.
    """
    total = tl.zeros((BLOCK,), tl.float32)
    moment = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        gap = tl.minimum(tl.maximum(value - peak, _FAR), 0.0)
        weight = tl.exp(gap)
        total += weight
        moment += weight * gap
    whole = tl.sum(total.to(tl.float64), 0)
    return whole, tl.sum(moment.to(tl.float64), 0) / tl.where(whole > 0, whole, 1.0)


@triton.jit(do_not_specialize=["least", "possible"])
def uncertainty_kernel(
    logits, entropy, least, possible, width, stride, BLOCK: tl.constexpr, PDL: tl.constexpr
):
    """One row."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    slot = tl.arange(0, BLOCK)
    peak = peak_of(row, slot, width, BLOCK)
    base = tl.where(tl.abs(peak) < INFINITY, peak, 0.0)
    whole, mean = weigh_row(row, slot, width, base, BLOCK)
    count = tl.zeros((BLOCK,), tl.int32)
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        count += (value > float("-inf")).to(tl.int32)
    surprise = tl.log(tl.where(whole > 0, whole, 1.0))
    tl.store(entropy + number, surprise - mean)
    tl.store(least + number, surprise)
    tl.store(possible + number, tl.sum(count, 0).to(tl.int64))


@triton.jit
def deviation_kernel(logits, out, width, stride, BLOCK: tl.constexpr, PDL: tl.constexpr):
    """One row: the mean of its numbers, and of their squared distances from it."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    slot = tl.arange(0, BLOCK)
    peak = peak_of(row, slot, width, BLOCK)
    base = tl.where(tl.abs(peak) < INFINITY, peak, 0.0)
    total = tl.zeros((BLOCK,), tl.float32)
    count = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        there = tl.abs(value) < INFINITY
        total += tl.where(there, value - base, 0.0)
        count += tl.where(there, 1.0, 0.0)
    members = tl.maximum(tl.sum(count.to(tl.float64), 0), 1.0)
    mean = (tl.sum(total.to(tl.float64), 0) / members).to(tl.float32)
    square = tl.zeros((BLOCK,), tl.float32)
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        off = tl.where(tl.abs(value) < INFINITY, value - base - mean, 0.0)
        square += off * off
    tl.store(out + number, tl.sqrt(tl.sum(square.to(tl.float64), 0) / members))


def uncertainty_on(*, overlapped: bool) -> Uncertainty:
    """Implements protocols.Uncertainty."""

    def uncertainty(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, width = logits.shape
        shape = (2, rows, 1)
        entropy, least = torch.empty(shape, dtype=torch.float64, device=logits.device).unbind()
        possible = torch.empty((rows, 1), dtype=torch.int64, device=logits.device)
        uncertainty_kernel[(rows,)](
            logits,
            entropy,
            least,
            possible,
            width,
            logits.stride(0),
            BLOCK=BLOCK,
            PDL=overlapped,
            num_warps=WARPS,
            launch_pdl=overlapped,
        )
        return entropy, least, possible

    return uncertainty


def deviation_on(*, overlapped: bool) -> Deviation:
    """Implements protocols.Deviation."""

    def deviation(logits: Tensor) -> Tensor:
        rows, width = logits.shape
        out = torch.empty((rows, 1), dtype=torch.float64, device=logits.device)
        deviation_kernel[(rows,)](
            logits,
            out,
            width,
            logits.stride(0),
            BLOCK=BLOCK,
            PDL=overlapped,
            num_warps=WARPS,
            launch_pdl=overlapped,
        )
        return out

    return deviation


SPECIMENS = (
    row_specimen(
        uncertainty_kernel,
        {"entropy": "*fp64", "least": "*fp64", "possible": "*i64"},
        BLOCK=BLOCK,
    ),
    row_specimen(deviation_kernel, {"out": "*fp64"}, BLOCK=BLOCK),
)
