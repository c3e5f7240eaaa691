"""Giving tokens other logits, by their distance from the largest or from a probability."""

from ctypes import c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.logits import LogitArguments, arguments_of, column_of
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.sampling_protocols import Bend, Prefer


class BendArguments(LogitArguments):
    """Of ops/bend.cpp."""

    _fields_ = (("square", c_void_p), ("cube", c_void_p))


class PreferArguments(LogitArguments):
    """Of ops/prefer.cpp."""

    _fields_ = (("aim", c_void_p), ("result", c_void_p))


def bend_on(runtime: Runtime) -> Bend:
    """Along a curve."""
    run = runtime.op("bend")

    def bend(logits: Tensor, square: Tensor, cube: Tensor) -> None:
        arguments = arguments_of(BendArguments, logits)
        square, cube = column_of("square", square, logits), column_of("cube", cube, logits)
        arguments.square, arguments.cube = square.data_ptr(), cube.data_ptr()
        run(arguments, logits, square, cube)

    return bend


def prefer_on(runtime: Runtime) -> Prefer:
    """By a probability that is aimed at."""
    run = runtime.op("prefer")

    def prefer(logits: Tensor, aim: Tensor) -> Tensor:
        arguments = arguments_of(PreferArguments, logits)
        aim, result = column_of("aim", aim, logits), runtime.empty(*logits.shape)
        arguments.aim, arguments.result = aim.data_ptr(), result.data_ptr()
        run(arguments, logits, aim, result)
        return result

    return prefer
