"""Triton kernels for CUDA devices: one kernel and its launcher per file.

An op that has no kernel here is the reference, which runs on the device as well. Without a device
the kernels run in Triton's interpreter (TRITON_INTERPRET=1 before the first import), for tests.
"""

import torch

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends.triton.device import device_obstacle

DEVICE = "cuda"


def obstacle() -> str | None:
    """Why no kernel can run on this machine; None if they can."""
    return device_obstacle()


def create(device: torch.device, *, threads: int | None, dtype: torch.dtype | None) -> Backend:
    """The kernels on `device`; dtype None: bfloat16."""
    from aphrodite_kernels.backends.triton.record import backend_on  # where there is no Triton, too

    return backend_on(device, threads, dtype or torch.bfloat16)
