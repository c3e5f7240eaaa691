"""Tensors of numbers beside a weight, checked before they are used."""

import torch
from torch import Tensor

from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.errors import TensorError


def finite(store: TensorStore, name: str, *shapes: tuple[int, ...]) -> Tensor:
    """Floating tensor `name` in float32, of one of `shapes` if any are given.

    Raises:
        TensorError: it is missing, of another type or shape, or holds NaN or infinity.
    """
    info = store.info(name)
    expected = " or ".join(str(list(shape)) for shape in shapes)
    floating = isinstance(info.type, torch.dtype) and info.type.is_floating_point
    if not floating or (shapes and info.shape not in shapes):
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected floating numbers {expected}"
        )
    values = store.read(name).float()
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        raise TensorError(
            f"{info.file}: tensor {name!r} holds {float(values[wrong][0])}; expected finite numbers"
        )
    return values


def exact(store: TensorStore, name: str, type_: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Tensor `name`, which must be of that type and shape; TensorError otherwise."""
    info = store.info(name)
    if info.type != type_ or info.shape != shape:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected {str(type_)[6:]} {list(shape)}"
        )
    return store.read(name)
