"""Removing tokens, by their logits alone."""

import enum
from collections.abc import Callable
from ctypes import c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
from aphrodite_kernels.protocols import KeepTopK, KeepTopP, LeastFrom


class Rule(enum.IntEnum):
    """What goes, as ops/keep.cpp numbers it."""

    BELOW = 0
    BELOW_LARGEST = 1
    ABOVE = 2


class KeepArguments(Arguments):
    """Of ops/keep.cpp."""

    _fields_ = (
        ("logits", c_void_p),
        ("limit", c_void_p),
        ("width", c_int64),
        ("stride", c_int64),
        ("rule", c_int32),
    )


class LeastFromArguments(Arguments):
    """Of ops/least_from.cpp."""

    _fields_ = (
        ("logits", c_void_p),
        ("threshold", c_void_p),
        ("result", c_void_p),
        ("width", c_int64),
        ("stride", c_int64),
    )


class KeepTopArguments(Arguments):
    """Of ops/keep_top.cpp."""

    _fields_ = (
        ("logits", c_void_p),
        ("wanted", c_void_p),
        ("width", c_int64),
        ("stride", c_int64),
        ("weighted", c_int32),
    )


def keep_on(runtime: Runtime, rule: Rule) -> Callable[[Tensor, Tensor], None]:
    """Keep, KeepNear or KeepUpTo."""
    run = runtime.op("keep")

    def keep(logits: Tensor, limit: Tensor) -> None:
        require_rows("logits", logits, None, None)
        rows, width = logits.shape
        limit = limit.contiguous()
        require_whole("limit", limit, rows, 1)
        arguments = KeepArguments(
            rows=rows,
            logits=logits.data_ptr(),
            limit=limit.data_ptr(),
            width=width,
            stride=logits.stride(0),
            rule=rule,
        )
        run(arguments, logits, limit)

    return keep


def least_from_on(runtime: Runtime) -> LeastFrom:
    """The least likely of likely tokens."""
    run = runtime.op("least_from")

    def least_from(logits: Tensor, threshold: Tensor) -> Tensor:
        require_rows("logits", logits, None, None)
        rows, width = logits.shape
        threshold = threshold.contiguous()
        require_whole("threshold", threshold, rows, 1)
        result = runtime.empty(rows, 1)
        arguments = LeastFromArguments(
            rows=rows,
            logits=logits.data_ptr(),
            threshold=threshold.data_ptr(),
            result=result.data_ptr(),
            width=width,
            stride=logits.stride(0),
        )
        run(arguments, logits, threshold, result)
        return result

    return least_from


def keep_top_k_on(runtime: Runtime) -> KeepTopK:
    """The likeliest by number."""
    keep_top = _keep_top_on(runtime, weighted=False)

    def keep_top_k(logits: Tensor, count: Tensor) -> None:
        keep_top(logits, count)

    return keep_top_k


def keep_top_p_on(runtime: Runtime) -> KeepTopP:
    """The likeliest by probability."""
    keep_top = _keep_top_on(runtime, weighted=True)

    def keep_top_p(logits: Tensor, share: Tensor) -> None:
        keep_top(logits, share)

    return keep_top_p


def _keep_top_on(runtime: Runtime, *, weighted: bool) -> Callable[[Tensor, Tensor], None]:
    run = runtime.op("keep_top")

    def keep_top(logits: Tensor, wanted: Tensor) -> None:
        require_rows("logits", logits, None, None)
        rows, width = logits.shape
        wanted = wanted.to(torch.float64).contiguous()
        require_whole("wanted", wanted, rows, 1, dtype=torch.float64)
        arguments = KeepTopArguments(
            rows=rows,
            logits=logits.data_ptr(),
            wanted=wanted.data_ptr(),
            width=width,
            stride=logits.stride(0),
            weighted=weighted,
        )
        run(arguments, logits, wanted)

    return keep_top
