"""The tensors of a checkpoint by module, whatever the model: what belongs to one weight."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from aphrodite_kernels.layouts import GgmlType
from aphrodite_quant import TensorInfo, TensorStore, is_cache_scale

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_INSIDE = ".weight."
"""Some tools keep what belongs to a weight below its name."""


@dataclass(frozen=True, slots=True)
class StoredModule:
    """One module: a matrix with what belongs to it, or plain vectors."""

    name: str
    tensors: tuple[TensorInfo, ...]

    @property
    def largest(self) -> TensorInfo:
        return max(self.tensors, key=lambda info: info.nbytes)

    @property
    def nbytes(self) -> int:
        return sum(info.nbytes for info in self.tensors)

    @property
    def elements(self) -> int:
        """Of the largest tensor."""
        return math.prod(self.largest.shape)

    @property
    def stored(self) -> str:
        return str(self.largest).partition(" ")[0]

    @property
    def pattern(self) -> str:
        """The name with `*` for numbers."""
        return _NUMBER.sub("*", self.name)

    @property
    def plain(self) -> bool:
        """Vectors, and kernels of convolutions: nothing that a format packs."""
        return all(
            not isinstance(info.type, GgmlType)
            and info.type.is_floating_point
            and info.type.itemsize > 1
            and len(info.shape) != 2
            for info in self.tensors
        )


def stored_modules(store: TensorStore) -> Iterator[StoredModule]:
    """Every module, in the order of the file; scales of KV caches belong to none."""
    modules: dict[str, list[TensorInfo]] = {}
    for name in store.names():
        if not is_cache_scale(name):
            head, inside, _ = name.partition(_INSIDE)
            module = head if inside else name.rpartition(".")[0]
            modules.setdefault(module, []).append(store.info(name))
    for name, tensors in modules.items():
        yield StoredModule(name, tuple(tensors))
