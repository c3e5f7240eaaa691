"""Capture once, replay many: recorded calls run one after the other in one call of the library."""

import ctypes
from collections.abc import Callable
from itertools import groupby

from torch import Tensor

from aphrodite_kernels.backends.cpu.recorder import Island, NativeCall, Recorder
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.errors import CaptureError, KernelError, ShapeError
from aphrodite_kernels.protocols import Capture, Program

_Counts = ctypes.c_int64 * 3


class _Step(ctypes.Structure):
    """Of csrc/cpu/program.cpp."""

    _fields_ = (("function", ctypes.c_void_p), ("arguments", ctypes.c_void_p))


class _Patch(ctypes.Structure):
    """Of csrc/cpu/program.cpp."""

    _fields_ = (("field", ctypes.c_void_p), ("count", ctypes.c_int64))


class _NativeRun:
    """Native calls that follow one another."""

    def __init__(self, runtime: Runtime, calls: list[NativeCall]) -> None:
        self._runtime = runtime
        self._names = [call.name for call in calls]
        steps = [_Step(call.function, ctypes.addressof(call.arguments)) for call in calls]
        self._steps = (_Step * len(steps))(*steps)
        self._call = runtime.library.aph_program_run

    def __call__(self, counts: tuple[int, int, int]) -> None:
        length = len(self._steps)
        done: int = self._call(self._runtime.handle, self._steps, length)
        if done != length:
            raise KernelError(f"{self._names[done]}: {self._runtime.last_error()}")


class _IslandRun:
    """One island."""

    def __init__(self, island: Island) -> None:
        self._island = island

    def __call__(self, counts: tuple[int, int, int]) -> None:
        rows = counts[self._island.count]
        if rows:
            self._island.function(rows)


class CallList:
    """A captured function: a `Program`."""

    def __init__(self, runtime: Runtime, recorder: Recorder, result: Tensor) -> None:
        self._recorder = recorder  # owns the memory that the calls point to
        self._result = result
        native = [call for call in recorder.calls if isinstance(call, NativeCall)]
        patches = [
            _Patch(
                ctypes.addressof(call.arguments) + getattr(type(call.arguments), name).offset, count
            )
            for call in native
            for name, count in call.counts
        ]
        self._patches = (_Patch * len(patches))(*patches)
        self._patch = runtime.library.aph_program_patch
        self._runs = _runs(runtime, recorder.calls)

    @property
    def nbytes(self) -> int:
        """Bytes of the program's own buffers."""
        return self._recorder.arena.nbytes

    def replay(self, tokens: int, requests: int, outputs: int) -> None:
        """Run all calls over the first rows of the buffers."""
        counts = (tokens, requests, outputs)
        for count, limit in zip(counts, self._recorder.counts, strict=True):
            if not 0 <= count <= limit:
                raise ShapeError(
                    f"a program for (tokens, requests, outputs) up to {self._recorder.counts} "
                    f"cannot run over {counts}"
                )
        self._patch(self._patches, len(self._patches), _Counts(*counts))
        for run in self._runs:
            run(counts)


def _runs(
    runtime: Runtime, calls: list[NativeCall | Island]
) -> list[Callable[[tuple[int, int, int]], None]]:
    """The calls, native neighbours taken together."""
    runs: list[Callable[[tuple[int, int, int]], None]] = []
    for _, group in groupby(calls, type):
        together = list(group)
        native = [call for call in together if isinstance(call, NativeCall)]
        islands = [call for call in together if isinstance(call, Island)]
        runs += [_NativeRun(runtime, native)] if native else map(_IslandRun, islands)
    return runs


def capture_on(runtime: Runtime) -> Capture:
    """Record a function's calls of this runtime's ops."""

    def capture(
        function: Callable[[], Tensor], tokens: int, requests: int, outputs: int
    ) -> tuple[Program, Tensor]:
        counts = (tokens, requests, outputs)
        if len(set(counts)) != 3 or min(counts) < 1:
            raise CaptureError(f"the counts of a capture must be different and positive: {counts}")
        recorder = Recorder(counts)
        with runtime.record(recorder):
            result = function()
        return CallList(runtime, recorder, result), result

    return capture
