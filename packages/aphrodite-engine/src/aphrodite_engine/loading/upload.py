"""Weights on their way to a device: from the mapped file through pinned memory.

What the device fetches must be pinned, and a mapped file is not. So threads copy slices of a tensor
into one pinned buffer while the device fetches the other. The fetches are in line with the device's
other work: stacking and re-tiling run at the speed of its memory, a hundred times that of the bus,
and a stream of their own would win nothing.
"""

from collections.abc import Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from aphrodite_kernels.backends.cpu.cores import physical_cores
from aphrodite_quant import TensorInfo, TensorStore
from numpy.typing import NDArray
from torch import Tensor

_BUFFERS = 2
_BUFFER = 64 << 20
"""Bytes of each."""
_SLICE = 4 << 20
"""Bytes that a thread copies at a time."""
_ALIGNMENT = 256


class _Buffer:
    """Pinned bytes that fill up, are fetched, and are used again."""

    def __init__(self, size: int, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self.bytes = torch.empty(size, dtype=torch.uint8, pin_memory=on_cuda)
        self._used = 0
        self._fetched = torch.cuda.Event() if on_cuda else None

    @property
    def left(self) -> int:
        return len(self.bytes) - self._used

    def take(self, most: int) -> Tensor:
        """The next bytes, as many as are left at most."""
        start = self._used
        stop = min(start + most, len(self.bytes))
        self._used = min(-(-stop // _ALIGNMENT) * _ALIGNMENT, len(self.bytes))
        return self.bytes[start:stop]

    def seal(self) -> None:
        """All that was taken is filled, and in line to be fetched."""
        if self._fetched is not None:
            self._fetched.record()

    def empty(self) -> None:
        """Wait until all is fetched, and begin again."""
        if self._fetched is not None:
            self._fetched.synchronize()
        self._used = 0


class Uploader:
    """Copies tensors to a device without waiting for it; leaving the context waits."""

    def __init__(self, device: torch.device, threads: int, buffer_bytes: int = _BUFFER) -> None:
        self._device = device
        self._buffers = [_Buffer(buffer_bytes, device) for _ in range(_BUFFERS)]
        self._current = 0
        self._threads = ThreadPoolExecutor(threads, "upload")

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensor on the device; one that does not lie in the host's memory is itself."""
        if tensor.device.type != "cpu":
            return tensor
        target = torch.empty(tensor.shape, dtype=tensor.dtype, device=self._device)
        source, stored = _as_bytes(tensor.contiguous()), _as_bytes(target)
        done = 0
        while done < len(source):
            pinned = self._room().take(len(source) - done)
            part = slice(done, done + len(pinned))
            self._fill(_array(pinned), _array(source[part]))
            stored[part].copy_(pinned, non_blocking=True)
            done = part.stop
        return target

    def _room(self) -> _Buffer:
        """A buffer that has some left."""
        if not self._buffers[self._current].left:
            self._buffers[self._current].seal()
            self._current = (self._current + 1) % _BUFFERS
            self._buffers[self._current].empty()
        return self._buffers[self._current]

    def _fill(self, pinned: NDArray[Any], source: NDArray[Any]) -> None:
        """Copy in slices; NumPy lets go of the interpreter's lock meanwhile."""
        if len(source) <= _SLICE:
            np.copyto(pinned, source)
            return

        def copy(start: int) -> None:
            np.copyto(pinned[start : start + _SLICE], source[start : start + _SLICE])

        list(self._threads.map(copy, range(0, len(source), _SLICE)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._device.type == "cuda" and error is None:
            torch.cuda.synchronize(self._device)


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.view(-1).view(torch.uint8)


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.numpy()  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True, slots=True)
class DeviceStore:
    """A store whose tensors lie on a device, so that what formats do to them happens there."""

    store: TensorStore
    upload: Callable[[Tensor], Tensor]

    def names(self) -> Collection[str]:
        return self.store.names()

    def info(self, name: str) -> TensorInfo:
        return self.store.info(name)

    def read(self, name: str) -> Tensor:
        return self.upload(self.store.read(name))


@contextmanager
def read_to(device: torch.device, store: TensorStore) -> Generator[TensorStore, None, None]:
    """The store, its tensors on `device`; on a CPU they stay where the file is mapped."""
    if device.type == "cpu":
        yield store
        return
    with Uploader(device, physical_cores()) as upload:
        yield DeviceStore(store, upload)
