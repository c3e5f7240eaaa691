"""Tensors of numbers beside a weight, checked before they are used.

Every function raises TensorError that names file, tensor, what was found and what was expected.
"""

import torch
from torch import Tensor

from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError

_KEPT = (torch.float32, torch.float16, torch.bfloat16)
_INDICES = (torch.int16, torch.int32, torch.int64)


def floating(store: TensorStore, name: str, *shapes: tuple[int, ...]) -> Tensor:
    """Finite floating numbers, of one of `shapes` if any are given.

    They keep float32, float16 and bfloat16; of any other type they become float32.
    """
    info = store.info(name)
    is_floating = isinstance(info.type, torch.dtype) and info.type.is_floating_point
    if not is_floating or (shapes and info.shape not in shapes):
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected floating numbers {expected}"
        )
    values = store.read(name)
    values = values if info.type in _KEPT else values.float()
    wrong = ~values.isfinite()
    if bool(wrong.any()):
        raise TensorError(
            f"{info.file}: tensor {name!r} holds {float(values[wrong][0])}; expected finite numbers"
        )
    return values


def finite(store: TensorStore, name: str, *shapes: tuple[int, ...]) -> Tensor:
    """What `floating` reads, in float32."""
    return floating(store, name, *shapes).float()


def positive(store: TensorStore, name: str, *shapes: tuple[int, ...]) -> Tensor:
    """What `finite` reads, all above 0."""
    values = finite(store, name, *shapes)
    wrong = values <= 0
    if bool(wrong.any()):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} holds {float(values[wrong][0])}; "
            "expected numbers above 0"
        )
    return values


def exact(store: TensorStore, name: str, type_: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Tensor `name`, which must be of that type and shape."""
    info = store.info(name)
    if info.type != type_ or info.shape != shape:
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected {str(type_)[6:]} {list(shape)}"
        )
    return store.read(name)


def matrix(store: TensorStore, name: str, *types: torch.dtype) -> TensorInfo:
    """What the file says of tensor `name`, a matrix of one of those types that is not empty."""
    info = store.info(name)
    if info.type not in types or len(info.shape) != 2 or 0 in info.shape:
        expected = " or ".join(str(type_)[6:] for type_ in types)
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}; expected a matrix of {expected}"
        )
    return info


def group_size(store: TensorStore, name: str, stated: int, columns: int) -> int:
    """Columns of one group of weight `name`; -1 states that all of them are one."""
    group = columns if stated == -1 else stated
    if group < 1 or columns % group:
        info = store.info(name)
        raise TensorError(
            f"{info.file}: tensor {name!r} is {info}: {columns} input features do not divide into "
            f"groups of {group}"
        )
    return group


def column_order(store: TensorStore, name: str, columns: int, group: int) -> Tensor | None:
    """Input features sorted by their group, or None if they are in order."""
    if name not in store.names():
        return None
    index = exact(store, name, torch.int32, (columns,))
    ordered = torch.arange(columns, device=index.device) // group
    if torch.equal(index.long(), ordered):
        return None
    found = index.long().sort(stable=True)
    if not torch.equal(found.values, ordered):
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} does not give each of {columns // group} "
            f"groups {group} of {columns} columns"
        )
    return found.indices


def permutation(store: TensorStore, name: str, columns: int) -> Tensor:
    """Each number below `columns` once, int64; int16 is unsigned."""
    info = store.info(name)
    if info.type not in _INDICES or info.shape != (columns,):
        raise TensorError(f"{info.file}: tensor {name!r} is {info}; expected integers [{columns}]")
    order = store.read(name).long()
    order = order & 0xFFFF if info.type == torch.int16 else order
    if not torch.equal(order.sort().values, torch.arange(columns, device=order.device)):
        raise TensorError(
            f"{info.file}: tensor {name!r} does not name each of {columns} input features once"
        )
    return order
