"""The search for paths through a trellis."""

from ctypes import c_int32, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_whole
from aphrodite_kernels.protocols import FindPaths


class TrellisPathsArguments(Arguments):
    """Of csrc/cpu/ops/floats/trellis_paths.cpp."""

    _fields_ = (
        ("targets", c_void_p),
        ("numbers", c_void_p),
        ("symbols", c_void_p),
        ("pair_bits", c_int32),
    )


def find_paths_on(runtime: Runtime) -> FindPaths:
    """Each ring on a thread; at most 16 MB of memory for each of them."""
    run = runtime.op("trellis_paths")

    def find_paths(targets: Tensor, bits: float, numbers: Tensor) -> Tensor:
        require_whole("targets", targets, None, 256)
        require_whole("numbers", numbers, 1 << 16)
        symbols = runtime.empty(*targets.shape, dtype=torch.uint8)
        arguments = TrellisPathsArguments(
            rows=len(targets),
            targets=targets.data_ptr(),
            numbers=numbers.data_ptr(),
            symbols=symbols.data_ptr(),
            pair_bits=int(2 * bits),
        )
        run(arguments, targets, numbers, symbols)
        return symbols

    return find_paths
