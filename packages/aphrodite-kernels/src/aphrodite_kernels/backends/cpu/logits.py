"""What ops on rows of logits share: the first fields of their arguments, and checks of tensors."""

from ctypes import c_int64, c_void_p
from typing import TypeVar

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole


class LogitArguments(Arguments):
    """First fields of each such op's arguments; a subclass appends its own."""

    _fields_ = (("logits", c_void_p), ("width", c_int64), ("stride", c_int64))


OfLogits = TypeVar("OfLogits", bound=LogitArguments)


def arguments_of(kind: type[OfLogits], logits: Tensor) -> OfLogits:
    """Of this kind, for logits [R, V] float32, its own fields still to be set.

    Raises:
        ShapeError: the logits are something else.
    """
    require_rows("logits", logits, None, None)
    rows, width = logits.shape
    return kind(rows=rows, logits=logits.data_ptr(), width=width, stride=logits.stride(0))


def column_of(
    name: str, column: Tensor, logits: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A column [R, 1] that goes with the logits, contiguous.

    Raises:
        ShapeError: it has another shape or dtype.
    """
    column = column.contiguous()
    require_whole(name, column, logits.shape[0], 1, dtype=dtype)
    return column
