"""The compiled CPU library, through ctypes.

Activations are float32. One thin shim per op: it checks shapes and dtypes, fills the structure that
the C function takes, and calls it. What has no compiled kernel is the reference.
"""

from dataclasses import replace

import torch

from aphrodite_kernels.backend import Backend, instruction_set_limit
from aphrodite_kernels.backends import reference
from aphrodite_kernels.backends.cpu.cores import physical_cores
from aphrodite_kernels.backends.cpu.library import open_library
from aphrodite_kernels.backends.cpu.norm import rms_norm_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.errors import BackendError

DEVICE = "cpu"


def obstacle() -> str | None:
    """Why the library cannot be used; None if it can."""
    try:
        open_library()
    except BackendError as error:
        return str(error)
    return None


def create(device: torch.device, *, threads: int | None, dtype: torch.dtype | None) -> Backend:
    """The compiled backend; threads None: physical cores."""
    if dtype not in (None, torch.float32):
        raise BackendError(
            f"the compiled CPU backend computes activations in float32, not {dtype}; "
            "leave the dtype out, or use the reference backend"
        )
    return backend_on(device, Runtime(threads or physical_cores(), instruction_set_limit()))


def backend_on(device: torch.device, runtime: Runtime) -> Backend:
    """The ops, bound to a runtime."""
    return replace(
        reference.create(device, threads=None, dtype=torch.float32),
        name="cpu",
        summary=f"cpu: compiled kernels on {runtime.level}, {runtime.threads} threads",
        rms_norm=rms_norm_on(runtime),
    )
