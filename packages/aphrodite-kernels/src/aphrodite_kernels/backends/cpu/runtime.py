"""What the shims share: the compiled library, its threads, and memory for results.

A shim checks its tensors, fills an `Arguments` structure and calls a `NativeOp`. It knows nothing
of recording: an op and an `empty` tensor do the right thing while a program is being captured.
"""

import ctypes
import weakref
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.library import LEVELS, open_library
from aphrodite_kernels.errors import BackendError, KernelError


class Arguments(ctypes.Structure):
    """First fields of every op's argument structure; a subclass appends its own."""

    _fields_ = (("rows", ctypes.c_int64), ("runtime", ctypes.c_void_p))
    counts: ClassVar[tuple[str, ...]] = ("rows",)
    """Fields that count tokens, requests or outputs, which a replay sets anew."""


class NativeOp:
    """One function of the library, bound to a runtime."""

    def __init__(self, runtime: "Runtime", name: str) -> None:
        self.name = name
        self._runtime = runtime
        self._function: Callable[[object], int] = runtime.library[f"aph_{name}"]

    def __call__(self, arguments: Arguments, *tensors: Tensor) -> None:
        """Run it; `tensors` are those that the arguments point to."""
        arguments.runtime = self._runtime.handle
        if self._function(ctypes.byref(arguments)):
            raise KernelError(f"{self.name}: {self._runtime.last_error()}")


class Runtime:
    """Threads and instruction set of one backend."""

    def __init__(self, threads: int, limit: str | None = None) -> None:
        """Start threads; `limit` names the highest instruction set that may be used."""
        if limit is not None and limit not in LEVELS:
            raise BackendError(
                f"{limit} is no instruction set of this library; it knows {', '.join(LEVELS)}"
            )
        level = LEVELS.index(limit) if limit else len(LEVELS) - 1
        self.library = open_library()
        self.threads = threads
        self.handle: int | None = self.library.aph_runtime_new(threads, level)
        if self.handle is None:
            raise BackendError(self.last_error())
        weakref.finalize(self, self.library.aph_runtime_delete, self.handle)
        self.level = LEVELS[self.library.aph_runtime_level(self.handle)]

    def last_error(self) -> str:
        """The message of this thread's last call that failed."""
        return self.library.aph_last_error().decode()

    def op(self, name: str) -> NativeOp:
        """The function `aph_<name>` of the library."""
        return NativeOp(self, name)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory for a result; contents are arbitrary."""
        return torch.empty(shape, dtype=dtype)
