# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Removing all but the likeliest tokens: a program searches one row for the least that stays.

The weight of a token is 1 (top-k) or its probability (top-p); all from some logit up that together
have the weight asked for stay. A row is folded onto BLOCK slots of which each remembers its four
largest numbers; among them the search is in registers. Only where a slot may hide a fifth that
would stay, as in flat distributions, it goes on over the row, which is read about 8 times more.

Floor: the logits in twice, mostly from the L2 cache, and out; one processor reads a row in 5 us.
"""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.sampling_order import LOWEST, order_of, value_of
from aphrodite_kernels.backends.triton.sampling_rows import change_rows, row_specimen
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.sampling_protocols import KeepTopK, KeepTopP

_BLOCK = 4096
"""Slots of a row: with 16 warps a thread holds 8."""
_INFINITY = tl.constexpr(float("inf"))
_HUGE = tl.constexpr(3e38)
_SLACK = tl.constexpr(4e-6)
"""Share of all probability by which too much may stay."""
_GUESSES = tl.constexpr(20)
"""Turns that interpolate; later ones halve the interval of orders, and end."""


@triton.jit
def _read(place, there):
    """Numbers; both zeros become one."""
    value = tl.load(place, there, float("-inf"))
    return tl.where(value == 0, 0.0, value)


@triton.jit
def _weight(value, peak, SHARES: tl.constexpr):
    """Of numbers up to `peak`."""
    if SHARES:
        return tl.exp(tl.minimum(value - peak, 0.0))
    else:
        return tl.where(value > float("-inf"), 1.0, 0.0)


@triton.jit
def _fold(row, slot, width, SHARES: tl.constexpr, BLOCK: tl.constexpr):
    """Per slot its four largest numbers, and its sum of exp(number - largest); if none is NaN."""
    first = tl.full((BLOCK,), float("-inf"), tl.float32)
    second, third, fourth = first, first, first
    total = tl.zeros((BLOCK,), tl.float32)
    broken = tl.zeros((BLOCK,), tl.int32)
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = _read(row + start + slot, start + slot < width)
        broken |= (value != value).to(tl.int32)
        if SHARES:
            reach = tl.exp(-tl.abs(value - tl.minimum(tl.maximum(first, -_HUGE), _HUGE)))
            total = tl.where(value > first, total * reach + 1, total + reach)
        rest = tl.minimum(first, value)
        first = tl.maximum(first, value)
        value = tl.minimum(second, rest)
        second = tl.maximum(second, rest)
        rest = tl.minimum(third, value)
        third = tl.maximum(third, value)
        fourth = tl.maximum(fourth, rest)
    return (first, second, third, fourth), total, tl.max(broken, 0) == 0


@triton.jit
def _middle(low, high):
    """The floor of the mean of two int32."""
    return (low >> 1) + (high >> 1) + (low & high & 1)


@triton.jit
def _note(value, weight, pivot, found):
    """Add numbers to what _survey returns of each slot."""
    stays = value >= pivot
    total, least, below = found
    return (
        total + tl.where(stays, weight, 0.0),
        tl.minimum(least, tl.where(stays, value, _INFINITY)),
        tl.maximum(below, tl.where(stays, float("-inf"), value)),
    )


@triton.jit
def _survey(row, slot, width, pivot, peak, SHARES: tl.constexpr, BLOCK: tl.constexpr):
    """Weight of a row's numbers from the pivot up, the least of these, and the largest other."""
    least = tl.full((BLOCK,), _INFINITY, tl.float32)
    found = tl.zeros((BLOCK,), tl.float32), least, -least
    for start in tl.range(0, width, BLOCK, num_stages=4):
        value = _read(row + start + slot, start + slot < width)
        found = _note(value, _weight(value, peak, SHARES), pivot, found)
    return tl.sum(found[0], 0), tl.min(found[1], 0), tl.max(found[2], 0)


@triton.jit
def _recall(known, weights, pivot, BLOCK: tl.constexpr):
    """The same of the numbers that are remembered."""
    least = tl.full((BLOCK,), _INFINITY, tl.float32)
    found = tl.zeros((BLOCK,), tl.float32), least, -least
    for index in tl.static_range(4):
        found = _note(known[index], weights[index], pivot, found)
    return tl.sum(found[0], 0), tl.min(found[1], 0), tl.max(found[2], 0)


@triton.jit
def _search(
    row,
    slot,
    width,
    known,
    weights,
    low,
    high,
    peak,
    mass,
    enough,
    WHOLE: tl.constexpr,
    SHARES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Raise `low`, from which on numbers weigh `mass`, until they weigh no more than `enough`.

    Or to the last such: those from `high` on weigh less than `mass`. WHOLE: numbers of the row,
    else of those that are remembered. Returns low and high.
    """
    aim = 0.5 * (mass + enough)
    reached = tl.full((), _INFINITY, tl.float32)
    # False position in the Illinois form: what is too much at `low` and too little at `high`, 0
    # while unknown, halved where the other end has moved twice.
    above = tl.full((), 0.0, tl.float32)
    short = above
    moved = 0
    turn = 0
    while (low + 1 < high) & (reached > enough):
        middle = _middle(low, high)
        if (turn < _GUESSES) & (low > LOWEST):
            between = (above > 0) & (short > 0)
            part = tl.where(between, short / tl.where(between, above + short, 1.0), 0.5)
            middle = order_of(value_of(low) * part + value_of(high) * (1 - part))
            middle = tl.minimum(tl.maximum(middle, low + 1), high - 1)
        pivot = value_of(middle)
        if WHOLE:
            weight, least, below = _survey(row, slot, width, pivot, peak, SHARES, BLOCK)
        else:
            weight, least, below = _recall(known, weights, pivot, BLOCK)
        if weight >= mass:
            low = order_of(least)
            reached = weight
            above = weight - aim
            short = tl.where(moved > 0, 0.5 * short, short)
            moved = 1
        else:
            high = tl.maximum(order_of(below), low) + 1
            short = aim - weight
            above = tl.where(moved < 0, 0.5 * above, above)
            moved = -1
        turn += 1
    return low, high


@triton.jit(do_not_specialize=["limit", "limit_stride"])
def keep_top_kernel(
    logits,
    limit,
    width,
    stride,
    limit_stride,
    SHARES: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """In place, one row. limit: of each row a count, int64; SHARES: a probability, float32."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    number = tl.program_id(0).to(tl.int64)
    row = logits + number * stride
    slot = tl.arange(0, BLOCK)
    asked = tl.load(limit + number * limit_stride)
    if (asked > 0) & (asked < (1 if SHARES else width)):
        known, total, sound = _fold(row, slot, width, SHARES, BLOCK)
        peak = tl.max(known[0], 0)
        if sound & (tl.abs(peak) < _INFINITY):
            mass = asked.to(tl.float32)
            enough = mass
            low, high = tl.full((), LOWEST, tl.int32), order_of(peak) + 1
            if SHARES:
                everything = tl.sum(total * _weight(known[0], peak, SHARES), 0)
                mass = asked * everything
                enough = mass + _SLACK * everything
                # All numbers below this one weigh at most a quarter of what may go.
                rest = tl.maximum(1 - asked, 1e-7) / (4.0 * width)
                low = order_of(peak + tl.log(rest))
            weights = (
                _weight(known[0], peak, SHARES),
                _weight(known[1], peak, SHARES),
                _weight(known[2], peak, SHARES),
                _weight(known[3], peak, SHARES),
            )
            low, high = _search(
                row, slot, width, known, weights, low, high, peak, mass, enough,
                WHOLE=False, SHARES=SHARES, BLOCK=BLOCK,
            )  # fmt: skip
            hidden = order_of(tl.max(known[3], 0))
            if low <= hidden:  # what is from there on may be more than is remembered
                high = tl.maximum(high, hidden + 1)
                low, high = _search(
                    row, slot, width, known, weights, low, high, peak, mass, enough,
                    WHOLE=True, SHARES=SHARES, BLOCK=BLOCK,
                )  # fmt: skip
            least = value_of(low)
            for start in tl.range(0, width, BLOCK, num_stages=4):
                there = start + slot < width
                value = tl.load(row + start + slot, there, 0.0)
                tl.store(row + start + slot, tl.where(value < least, float("-inf"), value), there)


def keep_top_k_on(*, overlapped: bool) -> KeepTopK:
    """Implements protocols.KeepTopK."""

    def keep_top_k(logits: Tensor, count: Tensor) -> None:
        _keep_top(logits, count, shares=False, overlapped=overlapped)

    return keep_top_k


def keep_top_p_on(*, overlapped: bool) -> KeepTopP:
    """Implements protocols.KeepTopP."""

    def keep_top_p(logits: Tensor, share: Tensor) -> None:
        _keep_top(logits, share, shares=True, overlapped=overlapped)

    return keep_top_p


def _keep_top(logits: Tensor, limit: Tensor, *, shares: bool, overlapped: bool) -> None:
    block = max(16, min(_BLOCK, triton.next_power_of_2(logits.shape[1])))
    change_rows(keep_top_kernel, logits, limit, SHARES=shares, BLOCK=block, overlapped=overlapped)


def _specimen(limit: str, *, shares: bool) -> Specimen:
    types = {"limit": limit, "limit_stride": "i32"}
    return row_specimen(keep_top_kernel, types, SHARES=shares, BLOCK=_BLOCK)


SPECIMENS = (_specimen("*i64", shares=False), _specimen("*fp32", shares=True))
