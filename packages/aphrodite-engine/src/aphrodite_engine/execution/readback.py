"""Tensors on their way from the device to the host, while both go on."""

import torch
from torch import Tensor


class Readback:
    """What the host wants of one step.

    On a CPU the tensors are there at once. Elsewhere each is copied into pinned memory behind the
    work that makes it; `seal` marks the end and `wait` waits for it, and for nothing behind it.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def take(self, tensor: Tensor) -> Tensor:
        """The tensor on the host; its numbers are there after `wait`."""
        if self._event is None:
            return tensor
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def seal(self) -> None:
        """Nothing more will be taken."""
        if self._event is not None:
            self._event.record()

    def wait(self) -> None:
        """Block until everything taken is on the host."""
        if self._event is not None:
            self._event.synchronize()
