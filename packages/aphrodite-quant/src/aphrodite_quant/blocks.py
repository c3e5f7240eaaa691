"""Small numbers and the scales beside them, whichever part of the matrix each scale is for."""

import torch
from aphrodite_kernels.layouts import Microscaled, Scaled
from torch import Tensor

from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.numbers import exact, finite, positive


def scaled(store: TensorStore, weight: TensorInfo, name: str, block: tuple[int, int]) -> Scaled:
    """The matrix `weight`, multiplied by the numbers `name`.

    They are one ([], [1], [1, 1]), one for each row ([N], [N, 1]) or one for every `block`
    ([ceil(N / rows), ceil(K / columns)], or [.., 1, .., 1]); they may be powers of two
    (float8_e8m0fnu).

    Raises:
        TensorError: they are none of these, or not finite and above 0.
    """
    rows, columns = weight.shape
    down, across = -(-rows // block[0]), -(-columns // block[1])
    shapes: dict[tuple[int, ...], tuple[int, int]] = {
        (): (rows, columns),
        (1,): (rows, columns),
        (1, 1): (rows, columns),
        (rows,): (1, columns),
        (rows, 1): (1, columns),
        (down, across): block,
        (down, 1, across, 1): block,
    }
    scale = positive(store, name)
    found = shapes.get(tuple(scale.shape))
    if found is None:
        raise TensorError(
            f"{store.info(name).file}: tensor {name!r} is {list(scale.shape)}, but the scales of "
            f"{list(weight.shape)} weights are one, {rows}, or one for every "
            f"{block[0]} x {block[1]}"
        )
    scale = scale.reshape(-(-rows // found[0]), -(-columns // found[1]))
    return Scaled(store.read(weight.name), scale, found)


def with_powers(
    store: TensorStore, weight: TensorInfo, name: str, columns: int, group: int
) -> Microscaled:
    """The matrix `weight` of so many columns, each group of them times a power of two.

    `name` is uint8 [N, K / group], the exponents plus 127.

    Raises:
        TensorError: it is not, or one stands for no number.
    """
    scale = exact(store, name, torch.uint8, (weight.shape[0], columns // group))
    if bool((scale == 255).any()):
        raise TensorError(f"{store.info(name).file}: tensor {name!r} holds 255, which is no number")
    return Microscaled(store.read(weight.name), scale.view(torch.float8_e8m0fnu), group)


def with_small_scales(
    store: TensorStore, weight: TensorInfo, name: str, group: int, whole: Tensor
) -> Microscaled:
    """The matrix `weight` of two E2M1 to a byte, times its scales and the number `whole`.

    `name` is float8_e4m3fn [N, K / group].

    Raises:
        TensorError: it is not, or not finite.
    """
    rows, columns = weight.shape[0], 2 * weight.shape[1]
    scale = exact(store, name, torch.float8_e4m3fn, (rows, columns // group))
    finite(store, name)
    row_scale = whole.reshape(1, 1).repeat(rows, 1)
    return Microscaled(store.read(weight.name), scale, group, row_scale)
