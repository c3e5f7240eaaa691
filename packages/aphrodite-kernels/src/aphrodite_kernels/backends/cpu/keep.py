"""Removing tokens, by their logits alone, and shifting probability among them."""

import enum
from collections.abc import Callable
from ctypes import c_int32, c_void_p
from typing import TypeAlias

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.logits import LogitArguments, arguments_of, column_of
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.sampling_protocols import KeepTopK, KeepTopP, LeastFrom

Change: TypeAlias = Callable[[Tensor, Tensor], None]
"""In place: logits [R, V] by a column [R, 1]."""


class Rule(enum.IntEnum):
    """What goes, as ops/keep.cpp numbers it."""

    BELOW = 0
    BELOW_LARGEST = 1
    ABOVE = 2


class ChangeArguments(LogitArguments):
    """Of ops that take a column, as ops/keep_typical.cpp; others append to it."""

    _fields_ = (("column", c_void_p),)


class KeepArguments(ChangeArguments):
    """Of ops/keep.cpp."""

    _fields_ = (("rule", c_int32),)


class LeastFromArguments(ChangeArguments):
    """Of ops/least_from.cpp."""

    _fields_ = (("result", c_void_p),)


class KeepTopArguments(ChangeArguments):
    """Of ops/keep_top.cpp."""

    _fields_ = (("weighted", c_int32),)


def keep_on(runtime: Runtime, rule: Rule) -> Change:
    """Keep, KeepNear or KeepUpTo."""
    run = runtime.op("keep")

    def keep(logits: Tensor, limit: Tensor) -> None:
        arguments = arguments_of(KeepArguments, logits)
        limit = column_of("limit", limit, logits)
        arguments.column, arguments.rule = limit.data_ptr(), rule
        run(arguments, logits, limit)

    return keep


def least_from_on(runtime: Runtime) -> LeastFrom:
    """The least likely of likely tokens."""
    run = runtime.op("least_from")

    def least_from(logits: Tensor, threshold: Tensor) -> Tensor:
        arguments = arguments_of(LeastFromArguments, logits)
        threshold = column_of("threshold", threshold, logits)
        result = runtime.empty(logits.shape[0], 1)
        arguments.column, arguments.result = threshold.data_ptr(), result.data_ptr()
        run(arguments, logits, threshold, result)
        return result

    return least_from


def change_on(runtime: Runtime, name: str) -> Change:
    """The op of this name: KeepTypical, KeepTailFree, Skew or Divide."""
    run = runtime.op(name)

    def change(logits: Tensor, column: Tensor) -> None:
        arguments = arguments_of(ChangeArguments, logits)
        column = column_of("column", column, logits)
        arguments.column = column.data_ptr()
        run(arguments, logits, column)

    return change


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


def _keep_top_on(runtime: Runtime, *, weighted: bool) -> Change:
    run = runtime.op("keep_top")

    def keep_top(logits: Tensor, wanted: Tensor) -> None:
        arguments = arguments_of(KeepTopArguments, logits)
        wanted = column_of("wanted", wanted.double(), logits, torch.float64)
        arguments.column, arguments.weighted = wanted.data_ptr(), weighted
        run(arguments, logits, wanted)

    return keep_top
