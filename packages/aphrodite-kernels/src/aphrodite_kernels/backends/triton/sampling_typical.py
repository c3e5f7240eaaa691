# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Removing all but the tokens nearest to the expected surprise: a program searches one row.

How far a token's surprise is from the entropy is how far its logit is from the weighted mean of
all. The distance up to which tokens weigh what is asked for is found digit by digit, two bits of
its float32 in each of 16 passes over the row, most of them from the L2 cache.

Floor: the logits in and out; the passes take 5 us each.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.sampling_rows import change_rows, row_specimen
from aphrodite_kernels.backends.triton.sampling_spread import BLOCK, INFINITY, peak_of, weigh_row
from aphrodite_kernels.sampling_protocols import KeepTypical


@triton.jit
def _distance_of(value, peak, mean):
    """Of a logit from the mean, which is relative to the peak."""
    return tl.abs((value - peak) - mean)


@triton.jit
def _weights_within(row, slot, width, peak, mean, near, middle, far, BLOCK: tl.constexpr):
    """Weights of a row's numbers up to three distances."""
    low = tl.zeros((BLOCK,), tl.float32)
    half = low
    high = low
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = tl.load(row + start + slot, start + slot < width, float("-inf"))
        distance = _distance_of(value, peak, mean)
        weight = tl.exp(value - peak)
        low += tl.where(distance <= near, weight, 0.0)
        half += tl.where(distance <= middle, weight, 0.0)
        high += tl.where(distance <= far, weight, 0.0)
    return (
        tl.sum(low.to(tl.float64), 0),
        tl.sum(half.to(tl.float64), 0),
        tl.sum(high.to(tl.float64), 0),
    )


@triton.jit
def _float_of(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["share", "share_stride"])
def keep_typical_kernel(
    logits, share, width, stride, share_stride, BLOCK: tl.constexpr, PDL: tl.constexpr
):
    """In place, one row."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    slot = tl.arange(0, BLOCK)
    asked = tl.load(share + number * share_stride)
    if asked < 1:
        peak = peak_of(row, slot, width, BLOCK)
        if tl.abs(peak) < INFINITY:
            whole, shift = weigh_row(row, slot, width, peak, BLOCK)
            mean = shift.to(tl.float32)
            wanted = asked.to(tl.float64) * whole
            most = tl.full((), 0, tl.int32)  # all distances below these bits weigh too little
            for digit in tl.range(0, 16):  # the last one has one bit left
                step = 1 << tl.maximum(29 - 2 * digit, 0)
                low, half, high = _weights_within(
                    row, slot, width, peak, mean, _float_of(most + step - 1),
                    _float_of(most + (step << 1) - 1), _float_of(most + 3 * step - 1), BLOCK,
                )  # fmt: skip
                most += tl.where((low >= wanted) & (low > 0), 0, step)
                most += tl.where((half >= wanted) & (half > 0), 0, step)
                most += tl.where((high >= wanted) & (high > 0), 0, step)
            farthest = _float_of(most)
            for start in tl.range(0, width, BLOCK, num_stages=4):
                there = start + slot < width
                value = tl.load(row + start + slot, there, 0.0)
                goes = _distance_of(value, peak, mean) > farthest
                tl.store(row + start + slot, tl.where(goes, float("-inf"), value), there)


def keep_typical_on(*, overlapped: bool) -> KeepTypical:
    """Implements protocols.KeepTypical."""

    def keep_typical(logits: Tensor, share: Tensor) -> None:
        change_rows(keep_typical_kernel, logits, share, BLOCK=BLOCK, overlapped=overlapped)

    return keep_typical


SPECIMENS = (
    row_specimen(keep_typical_kernel, {"share": "*fp32", "share_stride": "i32"}, BLOCK=BLOCK),
)
