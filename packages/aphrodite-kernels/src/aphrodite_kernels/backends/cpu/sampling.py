"""Random numbers, and choosing tokens."""

from ctypes import c_int64, c_uint32, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
from aphrodite_kernels.protocols import Argmax, Draw, LogSumExp, Uniform


class UniformArguments(Arguments):
    """Of ops/uniform.cpp."""

    _fields_ = (
        ("seeds", c_void_p),
        ("choices", c_void_p),
        ("positions", c_void_p),
        ("result", c_void_p),
        ("purpose", c_uint32),
    )


class ArgmaxArguments(Arguments):
    """Of ops/argmax.cpp."""

    _fields_ = (
        ("logits", c_void_p),
        ("tokens", c_void_p),
        ("valid", c_void_p),
        ("width", c_int64),
        ("stride", c_int64),
    )


class DrawArguments(Arguments):
    """Of ops/draw.cpp."""

    _fields_ = (
        ("logits", c_void_p),
        ("uniform", c_void_p),
        ("tokens", c_void_p),
        ("valid", c_void_p),
        ("width", c_int64),
        ("stride", c_int64),
    )


class LogSumExpArguments(Arguments):
    """Of ops/logsumexp.cpp."""

    _fields_ = (
        ("logits", c_void_p),
        ("result", c_void_p),
        ("width", c_int64),
        ("stride", c_int64),
    )


def uniform_on(runtime: Runtime) -> Uniform:
    """Philox4x32-10."""
    run = runtime.op("uniform")

    def uniform(seeds: Tensor, choices: Tensor, positions: Tensor, purpose: int) -> Tensor:
        require_whole("seeds", seeds, None, dtype=torch.int64)
        rows = seeds.shape[0]
        require_whole("choices", choices, rows, dtype=torch.int32)
        require_whole("positions", positions, rows, dtype=torch.int32)
        result = runtime.empty(rows)
        arguments = UniformArguments(
            rows=rows,
            seeds=seeds.data_ptr(),
            choices=choices.data_ptr(),
            positions=positions.data_ptr(),
            result=result.data_ptr(),
            purpose=purpose,
        )
        run(arguments, seeds, choices, positions, result)
        return result

    return uniform


def argmax_on(runtime: Runtime) -> Argmax:
    """The likeliest tokens."""
    run = runtime.op("argmax")

    def argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
        require_rows("logits", logits, None, None)
        rows, width = logits.shape
        tokens = runtime.empty(rows, dtype=torch.int32)
        valid = runtime.empty(rows, dtype=torch.bool)
        arguments = ArgmaxArguments(
            rows=rows,
            logits=logits.data_ptr(),
            tokens=tokens.data_ptr(),
            valid=valid.data_ptr(),
            width=width,
            stride=logits.stride(0),
        )
        run(arguments, logits, tokens, valid)
        return tokens, valid

    return argmax


def draw_on(runtime: Runtime) -> Draw:
    """Drawn tokens."""
    run = runtime.op("draw")

    def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        require_rows("logits", logits, None, None)
        rows, width = logits.shape
        require_whole("uniform", uniform, rows)
        tokens = runtime.empty(rows, dtype=torch.int32)
        valid = runtime.empty(rows, dtype=torch.bool)
        arguments = DrawArguments(
            rows=rows,
            logits=logits.data_ptr(),
            uniform=uniform.data_ptr(),
            tokens=tokens.data_ptr(),
            valid=valid.data_ptr(),
            width=width,
            stride=logits.stride(0),
        )
        run(arguments, logits, uniform, tokens, valid)
        return tokens, valid

    return draw


def logsumexp_on(runtime: Runtime) -> LogSumExp:
    """Normalisers."""
    run = runtime.op("logsumexp")

    def logsumexp(logits: Tensor) -> Tensor:
        require_rows("logits", logits, None, None)
        rows, width = logits.shape
        result = runtime.empty(rows)
        arguments = LogSumExpArguments(
            rows=rows,
            logits=logits.data_ptr(),
            result=result.data_ptr(),
            width=width,
            stride=logits.stride(0),
        )
        run(arguments, logits, result)
        return result

    return logsumexp
