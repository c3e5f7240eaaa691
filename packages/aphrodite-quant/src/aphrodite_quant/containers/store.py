"""The contract of every container: names, what each tensor is, and its bytes.

A store knows nothing of formats: it answers with what lies in the file.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from aphrodite_kernels.layouts import GgmlType
from torch import Tensor

from aphrodite_quant.errors import ContainerError, TensorError


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a file says of one tensor."""

    name: str
    file: Path
    type: torch.dtype | GgmlType
    """A plain dtype, or the ggml type of its blocks."""
    shape: tuple[int, ...]
    """In elements, slowest dimension first as in torch."""

    @property
    def nbytes(self) -> int:
        """Bytes it takes in the file."""
        elements = math.prod(self.shape)
        if isinstance(self.type, GgmlType):
            return elements // self.type.block_size * self.type.block_bytes
        return elements * self.type.itemsize

    def __str__(self) -> str:
        kind = self.type.name if isinstance(self.type, GgmlType) else str(self.type)[6:]
        return f"{kind} {list(self.shape)}"


class TensorStore(Protocol):
    """Named tensors in one or several files."""

    def names(self) -> Collection[str]:
        """Every tensor, in file order."""
        ...

    def info(self, name: str) -> TensorInfo:
        """What the file says of it; TensorError if it is not there."""
        ...

    def read(self, name: str) -> Tensor:
        """The tensor as a view of the mapped file: treat it as read-only.

        A plain dtype has the shape of its info; blocks are uint8 whose last dimension is the bytes
        of a row.
        """
        ...


@dataclass(frozen=True, eq=False, slots=True)
class IndexedStore:
    """What is known of the tensors of one or several files; a container adds how they are read."""

    files: tuple[Path, ...]
    _infos: Mapping[str, TensorInfo]

    def names(self) -> Collection[str]:
        return self._infos.keys()

    def info(self, name: str) -> TensorInfo:
        if name not in self._infos:
            raise TensorError(f"{self.files[0]} has no tensor {name!r}")
        return self._infos[name]


def check_copy(name: str, file: Path, copy: Tensor, chosen: Path, original: Tensor) -> None:
    """ContainerError if a tensor that two files hold is not the same in both."""
    if copy.dtype == original.dtype and copy.shape == original.shape:
        one, other = (t.contiguous().flatten().view(torch.uint8) for t in (copy, original))
        if torch.equal(one, other):
            return
    raise ContainerError(
        f"{file}: tensor {name!r} is also in {chosen.name}, where it is another; expected it once"
    )
