"""Memory for the tensors of a program.

A block goes back when the last tensor on it dies, so the order in which Python drops a function's
intermediate results is the plan by which memory is reused. It is then right for every replay,
because a replay makes the same calls in the same order.
"""

import ctypes
import weakref

import torch
from torch import Tensor


class Arena:
    """Blocks of memory, handed out as tensors."""

    def __init__(self) -> None:
        self._blocks: dict[int, Tensor] = {}
        self._free: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks, in use or not."""
        return sum(block.nbytes for block in self._blocks.values())

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A tensor with arbitrary contents."""
        count = torch.Size(shape).numel()
        block = self._take(max(1, count * dtype.itemsize))
        lease = (ctypes.c_char * block.nbytes).from_address(block.data_ptr())
        weakref.finalize(lease, self._free.append, block).atexit = False
        # The tensor's storage holds the lease: it ends with the last view.
        return torch.frombuffer(lease, dtype=dtype, count=count).view(shape)

    def owns(self, tensor: Tensor) -> bool:
        """Whether the tensor, or what it is a view of, lies here."""
        return tensor.untyped_storage().data_ptr() in self._blocks

    def _take(self, nbytes: int) -> Tensor:
        """The smallest free block that fits and is not wasted on so little, or a new one."""
        fitting = [
            (block.nbytes, index)
            for index, block in enumerate(self._free)
            if nbytes <= block.nbytes <= 2 * nbytes
        ]
        if fitting:
            return self._free.pop(min(fitting)[1])
        block = torch.empty(nbytes, dtype=torch.uint8)
        self._blocks[block.data_ptr()] = block
        return block
