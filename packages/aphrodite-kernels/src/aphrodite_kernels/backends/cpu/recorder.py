"""What happens while a function is captured: the ops it calls are run and written down.

Ops of the library become native calls; an op without a kernel becomes an island, a Python function
that is called between them. Torch's own arithmetic would be lost at replay and is refused.
"""

import ctypes
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aphrodite_kernels.backends.cpu.arena import Arena
from aphrodite_kernels.errors import CaptureError

_MAKES_MEMORY = {"aten::empty", "aten::empty_strided", "aten::empty_like", "aten::new_empty"}


@dataclass(frozen=True, slots=True)
class NativeCall:
    """A call of a library function."""

    name: str
    function: int
    """Its address."""
    arguments: ctypes.Structure
    counts: tuple[tuple[str, int], ...]
    """Fields of the arguments, and which of (tokens, requests, outputs) they hold."""


@dataclass(frozen=True, slots=True)
class Island:
    """A call of a Python function that writes its first rows anew."""

    function: Callable[[int], None]
    count: int
    """Which of (tokens, requests, outputs) its rows are."""


@dataclass(slots=True)
class Recorder:
    """The calls of one capture, in order, and the memory they use."""

    counts: tuple[int, int, int]
    """Rows of the full buffers: tokens, requests, outputs."""
    arena: Arena = field(default_factory=Arena)
    calls: list[NativeCall | Island] = field(default_factory=list[NativeCall | Island])
    kept: dict[int, Tensor] = field(default_factory=dict[int, Tensor])
    """Tensors from outside that the calls point to, by address of their memory."""
    computing: bool = False
    """Torch may compute: inside an island."""

    def which(self, name: str, rows: int) -> int:
        """Which of the counts a number of rows is."""
        if rows not in self.counts:
            tokens, requests, outputs = self.counts
            raise CaptureError(
                f"{name} runs over {rows} rows, which are neither the {tokens} tokens nor the "
                f"{requests} requests nor the {outputs} outputs of the program"
            )
        return self.counts.index(rows)

    def keep(self, tensors: tuple[Tensor, ...]) -> None:
        """Hold the memory of tensors that are not the program's own."""
        for tensor in tensors:
            if not self.arena.owns(tensor):
                self.kept[tensor.untyped_storage().data_ptr()] = tensor

    def island(self, function: Callable[[int], Tensor], rows: int) -> Tensor:
        """Call a function of a number of rows, and again at each replay."""
        count = self.which("an op without a kernel", rows)
        with self._compute():
            value = function(rows)
            result = self.arena.empty(tuple(value.shape), value.dtype)
            result.copy_(value)

        def write(rows: int) -> None:
            result[:rows].copy_(function(rows))

        self.calls.append(Island(write, count))
        return result

    @contextmanager
    def recording(self) -> Generator[None, None, None]:
        """Refuse torch's own arithmetic meanwhile."""
        with _OnlyViews(self):
            yield

    @contextmanager
    def _compute(self) -> Generator[None, None, None]:
        self.computing = True
        try:
            yield
        finally:
            self.computing = False


class _OnlyViews(TorchDispatchMode):
    """Lets torch make views and empty tensors, nothing else."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not self._recorder.computing and not _is_harmless(func):
            raise CaptureError(
                f"torch computes {func} inside a captured function, which a replay would not "
                "repeat; use an op of the backend, or compute before the capture"
            )
        return func(*args, **(kwargs or {}))


def _is_harmless(function: Any) -> bool:
    """Whether a torch op only makes views or memory."""
    schema: torch.FunctionSchema = function._schema
    aliases = [returned.alias_info for returned in schema.returns]
    is_view = bool(aliases) and all(alias and not alias.is_write for alias in aliases)
    return is_view or schema.name in _MAKES_MEMORY
