"""What rows of logits are like: normaliser, uncertainty, deviation."""

from ctypes import c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.logits import LogitArguments, arguments_of
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.sampling_protocols import Deviation, LogSumExp, Uncertainty


class ResultArguments(LogitArguments):
    """Of ops/logsumexp.cpp and ops/deviation.cpp."""

    _fields_ = (("result", c_void_p),)


class UncertaintyArguments(LogitArguments):
    """Of ops/uncertainty.cpp."""

    _fields_ = (("entropy", c_void_p), ("least", c_void_p), ("possible", c_void_p))


def logsumexp_on(runtime: Runtime) -> LogSumExp:
    """Normalisers."""
    run = runtime.op("logsumexp")

    def logsumexp(logits: Tensor) -> Tensor:
        arguments = arguments_of(ResultArguments, logits)
        result = runtime.empty(logits.shape[0])
        arguments.result = result.data_ptr()
        run(arguments, logits, result)
        return result

    return logsumexp


def deviation_on(runtime: Runtime) -> Deviation:
    """Standard deviations."""
    run = runtime.op("deviation")

    def deviation(logits: Tensor) -> Tensor:
        arguments = arguments_of(ResultArguments, logits)
        result = runtime.empty(logits.shape[0], 1, dtype=torch.float64)
        arguments.result = result.data_ptr()
        run(arguments, logits, result)
        return result

    return deviation


def uncertainty_on(runtime: Runtime) -> Uncertainty:
    """Entropy, least surprise and the number of possible tokens."""
    run = runtime.op("uncertainty")

    def uncertainty(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        arguments = arguments_of(UncertaintyArguments, logits)
        rows = logits.shape[0]
        entropy = runtime.empty(rows, 1, dtype=torch.float64)
        least = runtime.empty(rows, 1, dtype=torch.float64)
        possible = runtime.empty(rows, 1, dtype=torch.int64)
        arguments.entropy, arguments.least = entropy.data_ptr(), least.data_ptr()
        arguments.possible = possible.data_ptr()
        run(arguments, logits, entropy, least, possible)
        return entropy, least, possible

    return uncertainty
