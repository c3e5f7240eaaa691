"""Counter-based random numbers."""

from ctypes import c_uint32, c_void_p

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_whole
from aphrodite_kernels.protocols import Uniform


class UniformArguments(Arguments):
    """Of ops/uniform.cpp."""

    _fields_ = (
        ("seeds", c_void_p),
        ("choices", c_void_p),
        ("positions", c_void_p),
        ("result", c_void_p),
        ("purpose", c_uint32),
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
