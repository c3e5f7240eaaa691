"""Random numbers, and choosing tokens."""

from ctypes import c_uint32, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.logits import LogitArguments, arguments_of
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_whole
from aphrodite_kernels.sampling_protocols import Argmax, Draw, Uniform


class UniformArguments(Arguments):
    """Of ops/uniform.cpp."""

    _fields_ = (
        ("seeds", c_void_p),
        ("choices", c_void_p),
        ("positions", c_void_p),
        ("result", c_void_p),
        ("purpose", c_uint32),
    )


class ArgmaxArguments(LogitArguments):
    """Of ops/argmax.cpp."""

    _fields_ = (("tokens", c_void_p), ("valid", c_void_p))


class DrawArguments(LogitArguments):
    """Of ops/draw.cpp."""

    _fields_ = (("uniform", c_void_p), ("tokens", c_void_p), ("valid", c_void_p))


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
        arguments = arguments_of(ArgmaxArguments, logits)
        tokens = runtime.empty(logits.shape[0], dtype=torch.int32)
        valid = runtime.empty(logits.shape[0], dtype=torch.bool)
        arguments.tokens, arguments.valid = tokens.data_ptr(), valid.data_ptr()
        run(arguments, logits, tokens, valid)
        return tokens, valid

    return argmax


def draw_on(runtime: Runtime) -> Draw:
    """Drawn tokens."""
    run = runtime.op("draw")

    def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        arguments = arguments_of(DrawArguments, logits)
        require_whole("uniform", uniform, logits.shape[0])
        tokens = runtime.empty(logits.shape[0], dtype=torch.int32)
        valid = runtime.empty(logits.shape[0], dtype=torch.bool)
        arguments.uniform = uniform.data_ptr()
        arguments.tokens, arguments.valid = tokens.data_ptr(), valid.data_ptr()
        run(arguments, logits, uniform, tokens, valid)
        return tokens, valid

    return draw
