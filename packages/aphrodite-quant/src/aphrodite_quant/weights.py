"""The weights of a checkpoint under the names a model asks for.

A view: nothing is read before it is asked for, and nothing is kept. It knows no model; the engine
supplies the mapping of names.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import GgmlType, PackedWeight
from torch import Tensor

from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.format import find_format
from aphrodite_quant.reader import Reader

Rename = Callable[[str], str | None]
"""From a wanted module path to the stored one (`dict.get` fits); None: it has no counterpart."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Store, reader and mapping of names, seen from one module path."""

    store: TensorStore
    read: Reader
    rename: Rename = str
    prefix: str = ""

    @classmethod
    def of(cls, checkpoint: Checkpoint, rename: Rename = str) -> Self:
        """All weights of a checkpoint, in the format that claims it."""
        return cls(checkpoint.store, find_format(checkpoint).reader(checkpoint), rename)

    def scope(self, name: str) -> Self:
        """The same weights seen from a module further in."""
        return replace(self, prefix=self._path(name))

    def has(self, name: str) -> bool:
        """Whether tensor `<module>.<leaf>` is stored."""
        return self._stored_tensor(name) in self.store.names()

    def packed(self, name: str, shape: tuple[int, int] | None = None) -> PackedWeight:
        """The weight [N, K] of linear module `name`, of `shape` if one is given."""
        stored = self.rename(self._path(name))
        if stored is None:
            raise TensorError(f"the checkpoint has no weight for {self._path(name)!r}")
        try:
            weight = self.read(self.store, stored)
        except LayoutError as error:
            raise TensorError(
                f"{self._file(stored)}: the tensors of {stored!r} fit no layout: {error}"
            ) from error
        found = (weight.out_features, weight.in_features)
        if shape is None or found == shape:
            return weight
        try:
            return weight.cropped(*shape)
        except LayoutError as error:
            raise TensorError(
                f"{self._file(stored)}: weight {stored!r} is {list(found)}, expected {list(shape)}"
            ) from error

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """Tensor `<module>.<leaf>` in float32, of `shape` if one is given."""
        stored = self._stored_tensor(name)
        if stored is None:
            raise TensorError(f"the checkpoint has no tensor for {self._path(name)!r}")
        info = self.store.info(stored)
        where = f"{info.file}: tensor {stored!r} is {info}"
        if isinstance(info.type, GgmlType) or not info.type.is_floating_point:
            raise TensorError(f"{where}, expected floating numbers")
        if shape is not None and info.shape != shape:
            raise TensorError(f"{where}, expected {list(shape)}")
        return self.store.read(stored).float()

    def _file(self, module: str) -> Path:
        """The file of the first tensor of a stored module, or of what holds it: it may be fused."""
        names = self.store.names()
        while module and not any(name.startswith(f"{module}.") for name in names):
            module = module.rpartition(".")[0]
        start = f"{module}." if module else ""
        return self.store.info(next(name for name in names if name.startswith(start))).file

    def _path(self, name: str) -> str:
        return f"{self.prefix}.{name}" if self.prefix else name

    def _stored_tensor(self, name: str) -> str | None:
        module, _, leaf = self._path(name).rpartition(".")
        stored = self.rename(module)
        return None if stored is None else f"{stored}.{leaf}"
