"""What the shims share: the compiled library, its threads, and memory for results.

A shim checks its tensors, fills an `Arguments` structure and calls a `NativeOp`. It knows nothing
of recording: an op, an `empty` tensor and an `island` do the right thing during a capture.
"""

import ctypes
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.library import LEVELS, open_library
from aphrodite_kernels.backends.cpu.recorder import NativeCall, Recorder
from aphrodite_kernels.errors import BackendError, CaptureError, KernelError


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
        try:
            self._function = runtime.library[f"aph_{name}"]
        except AttributeError:
            raise BackendError(
                f"the compiled CPU library has no op {name}: it is older than the Python files; "
                "reinstall aphrodite-kernels"
            ) from None
        self._address = ctypes.cast(self._function, ctypes.c_void_p).value or 0

    def __call__(self, arguments: Arguments, *tensors: Tensor) -> None:
        """Run it, or write it down; `tensors` are those that the arguments point to."""
        arguments.runtime = self._runtime.handle
        recorder = self._runtime.recorder
        if recorder is not None:
            self._write_down(recorder, arguments, tensors)
        elif arguments.rows and self._function(ctypes.byref(arguments)):
            raise KernelError(f"{self.name}: {self._runtime.last_error()}")

    def _write_down(
        self, recorder: Recorder, arguments: Arguments, tensors: tuple[Tensor, ...]
    ) -> None:
        counts = tuple(
            (name, recorder.which(self.name, getattr(arguments, name))) for name in arguments.counts
        )
        recorder.calls.append(NativeCall(self.name, self._address, arguments, counts))
        recorder.keep(tensors)


class _Current(threading.local):
    """The capture that a thread is in the middle of."""

    recorder: Recorder | None = None


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
        # Not at exit: another thread may still be inside an op.
        end = weakref.finalize(self, self.library.aph_runtime_delete, self.handle)
        end.atexit = False
        self.level = LEVELS[self.library.aph_runtime_level(self.handle)]
        self._current = _Current()

    @property
    def recorder(self) -> Recorder | None:
        """Of the capture that this thread is in the middle of."""
        return self._current.recorder

    def last_error(self) -> str:
        """The message of this thread's last call that failed."""
        return self.library.aph_last_error().decode()

    def op(self, name: str) -> NativeOp:
        """The function `aph_<name>` of the library."""
        return NativeOp(self, name)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory for a result; contents are arbitrary."""
        if self.recorder is not None:
            return self.recorder.arena.empty(shape, dtype)
        return torch.empty(shape, dtype=dtype)

    def island(self, function: Callable[[int], Tensor], shape: tuple[int, int]) -> Tensor:
        """An op without a kernel: function(rows) computes that many first rows in torch.

        What it reads must be buffers; a program calls it with the rows of each replay. The result
        has the shape given and is float32.
        """
        if self.recorder is not None:
            return self.recorder.island(function, shape)
        return function(shape[0])

    @contextmanager
    def record(self, recorder: Recorder) -> Generator[None, None, None]:
        """Write down what this thread calls meanwhile."""
        if self.recorder is not None:
            raise CaptureError("a capture cannot begin inside another capture")
        self._current.recorder = recorder
        try:
            with recorder.recording():
                yield
        finally:
            self._current.recorder = None
