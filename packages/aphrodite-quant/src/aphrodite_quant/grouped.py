"""What formats of grouped codes read alike: packed integers, scales, the size of a group.

Every function raises TensorError that names file, tensor, what was expected and what was found.
"""

import torch
from torch import Tensor

from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def read_integers(store: TensorStore, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """An int32 tensor of that shape; a matrix if none is given."""
    info = store.info(name)
    if info.type != torch.int32 or (len(info.shape) != 2 if shape is None else info.shape != shape):
        expected = "a matrix" if shape is None else str(list(shape))
        raise TensorError(f"{info.file}: tensor {name!r} is {info}; expected int32, {expected}")
    return store.read(name)


def read_scales(store: TensorStore, name: str, shape: tuple[int, ...]) -> Tensor:
    """Finite floating numbers of that shape, in the dtype that they have."""
    info = store.info(name)
    if info.type not in _FLOATS or info.shape != shape:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected floating numbers {list(shape)}"
        )
    scale = store.read(name)
    wrong = ~scale.isfinite()
    if bool(wrong.any()):
        raise TensorError(
            f"{info.file}: tensor {name!r} holds {float(scale[wrong][0])}; these numbers are finite"
        )
    return scale


def group_size(store: TensorStore, name: str, stated: int, columns: int) -> int:
    """Columns of one group; -1 states that all of them are one."""
    group = columns if stated == -1 else stated
    if group < 1 or columns % group:
        info = store.info(name)
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}: {columns} input features do not divide into "
            f"groups of {group}"
        )
    return group
