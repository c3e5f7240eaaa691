"""Eight-bit weights and the scales beside them, whichever part of the matrix each scale is for."""

from aphrodite_kernels.layouts import Scaled

from aphrodite_quant.containers.store import TensorInfo, TensorStore
from aphrodite_quant.errors import TensorError
from aphrodite_quant.numbers import positive


def scaled(store: TensorStore, weight: TensorInfo, name: str, block: tuple[int, int]) -> Scaled:
    """The matrix `weight`, multiplied by the numbers `name`.

    They are one ([], [1], [1, 1]), one for each row ([N], [N, 1]) or one for every `block`
    ([ceil(N / rows), ceil(K / columns)]); they may be powers of two (float8_e8m0fnu).

    Raises:
        TensorError: they are none of these, or not finite and above 0.
    """
    rows, columns = weight.shape
    shapes: dict[tuple[int, ...], tuple[int, int]] = {
        (): (rows, columns),
        (1,): (rows, columns),
        (1, 1): (rows, columns),
        (rows,): (1, columns),
        (rows, 1): (1, columns),
        (-(-rows // block[0]), -(-columns // block[1])): block,
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
