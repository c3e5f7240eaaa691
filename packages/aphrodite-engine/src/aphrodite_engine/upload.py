"""Arrays on their way from the host to the device, without waiting for it."""

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def staged(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array in memory from which a copy to the device need not be waited for.

    Torch keeps pinned memory alive until the copies that read it are over.
    """
    host = torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
    return host.pin_memory() if device.type == "cuda" else host


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on the device."""
    return staged(array, device).to(device, non_blocking=True)
