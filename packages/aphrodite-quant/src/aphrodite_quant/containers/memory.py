"""Tensors that lie in memory, as a store: what was just written, read as if from a file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from aphrodite_quant.containers.store import TensorInfo
from aphrodite_quant.errors import TensorError


@dataclass(frozen=True, eq=False, slots=True)
class MemoryStore:
    """Named tensors; `origin` stands for their file in messages."""

    origin: Path
    tensors: Mapping[str, Tensor]

    def names(self) -> Collection[str]:
        return self.tensors.keys()

    def info(self, name: str) -> TensorInfo:
        if name not in self.tensors:
            raise TensorError(f"{self.origin} has no tensor {name!r}")
        tensor = self.tensors[name]
        return TensorInfo(name, self.origin, tensor.dtype, tuple(tensor.shape))

    def read(self, name: str) -> Tensor:
        self.info(name)
        return self.tensors[name]
