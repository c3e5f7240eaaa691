"""What happens while a function is captured: the ops it calls are written down, none is run.

Ops of the library become native calls; an op without a kernel becomes an island, a Python function
that is called between them. Torch's own arithmetic would be lost at replay and is refused.
"""

import ctypes
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from aphrodite_kernels.backends.cpu.arena import Arena
from aphrodite_kernels.errors import CaptureError

_MAKES_MEMORY = {torch.empty, torch.empty_like, torch.Tensor.new_empty, torch.frombuffer}
_LOOKS_OR_WRITES = frozenset(
    ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__setitem__")
)
_IN_PLACE_OPERATOR = re.compile("__i(add|sub|mul|truediv|floordiv|mod|pow|and|or|xor|matmul)__")


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

    def island(self, function: Callable[[int], Tensor], shape: tuple[int, int]) -> Tensor:
        """Call a function of a number of rows at each replay; its result, of no contents yet."""
        count = self.which("an op without a kernel", shape[0])
        result = self.arena.empty(shape, torch.float32)

        def write(rows: int) -> None:
            result[:rows].copy_(function(rows))

        self.calls.append(Island(write, count))
        return result

    @contextmanager
    def recording(self) -> Generator[None, None, None]:
        """Refuse torch's own arithmetic meanwhile."""
        with _OnlyViews():
            yield


class _OnlyViews(TorchFunctionMode):
    """Lets torch make views and empty tensors, nothing else."""

    # Not a TorchDispatchMode: the first one of a process imports the compiler, which takes seconds.

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        allowed = func in _MAKES_MEMORY or not (
            _looks_or_writes(func, kwargs) or _is_new(result, (args, kwargs))
        )
        if not allowed:
            raise CaptureError(
                f"torch computes {_name(func)} inside a captured function, which a replay would "
                "not repeat; use an op of the backend, or compute before the capture"
            )
        return result


def _name(function: Any) -> str:
    return getattr(function, "__name__", str(function))


def _looks_or_writes(function: Any, kwargs: Any) -> bool:
    """Whether a torch function reads numbers into Python or writes into a tensor: by its name.

    Tensors of the inference mode do not count their versions.
    """
    name = _name(function)
    in_place = (name.endswith("_") and not name.endswith("__")) or "out" in (kwargs or {})
    return in_place or name in _LOOKS_OR_WRITES or _IN_PLACE_OPERATOR.match(name) is not None


def _is_new(result: Any, inputs: Any) -> bool:
    """Whether a result has tensors that are not views of inputs."""
    made = _tensors(result)
    if not made:
        return False
    memory = {each.untyped_storage().data_ptr() for each in _tensors(inputs)}
    return any(each.untyped_storage().data_ptr() not in memory for each in made)


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, bool | int | torch.Size | torch.dtype):  # most results are: no need to look
        return []
    return [each for each in tree_iter(tree) if isinstance(each, Tensor)]
