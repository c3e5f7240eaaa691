"""Matrices as the Marlin kernels keep them: tiles in the order in which a warp multiplies them.

A strip of 16 input by 64 output features is 1024 codes, a little-endian bit stream. Written as bits
or digits from the slowest on, a place in it is: the feature's digits that `PLACES` names.
"""

from dataclasses import dataclass

import torch
from aphrodite_kernels.layouts.grouped import unpack_codes
from torch import Tensor

from aphrodite_quant.containers.store import TensorStore
from aphrodite_quant.numbers import exact, floating

_STRIP = 64
"""Output features of a strip."""
_TILE = 16
"""Input features of a strip."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the codes of a strip lie."""

    sizes: tuple[int, ...]
    """Of the digits of a place, slowest first; their product is 1024."""
    inputs: tuple[int, ...]
    """Which of them make an input feature, slowest first."""
    outputs: tuple[int, ...]
    """Which of them make an output feature."""


MARLIN = Places((8, 4, 4, 2, 2, 2), (5, 1, 3), (2, 4, 0))
"""Four bits."""
SPARSE = {
    4: Places((4, 2, 4, 4, 2, 2, 2), (6, 2, 4), (0, 1, 5, 3)),
    8: Places((4, 2, 4, 4, 2, 2, 2), (6, 2, 5), (0, 1, 4, 3)),
}
"""By bits, of the codes that 2:4 sparsity leaves."""


def read_strips(
    store: TensorStore, name: str, shape: tuple[int, int], bits: int, places: Places
) -> Tensor:
    """The codes [N, K] uint8 of tensor `name`, int32 [K / 16, N * bits / 2]; `shape` is [N, K]."""
    rows, columns = shape
    words = exact(store, name, torch.int32, (columns // _TILE, rows * bits // 2))
    codes = unpack_codes(words.contiguous().view(torch.uint8), bits)
    strips = codes.view(columns // _TILE, rows // _STRIP, *places.sizes)
    outputs = [axis + 2 for axis in places.outputs]
    inputs = [axis + 2 for axis in places.inputs]
    return strips.permute(1, *outputs, 0, *inputs).reshape(rows, columns)


def divides(shape: tuple[int, int]) -> bool:
    """Whether a matrix [N, K] is made of whole strips."""
    return shape[0] % _STRIP == 0 and shape[1] % _TILE == 0 and min(shape) > 0


def read_scales(store: TensorStore, name: str, rows: int, groups: int, *, sparse: bool) -> Tensor:
    """The scales [N, G] of tensor `name` [G, N], which lie in an order of their own."""
    stored = floating(store, name, (groups, rows))
    if groups == 1:
        several = stored.view(1, -1, 4, 4, 2).permute(0, 1, 3, 2, 4)
        ordered = stored if sparse else several
    elif sparse:
        ordered = stored.view(groups, -1, 4, 2).transpose(2, 3)
    else:
        ordered = stored.view(groups, -1, 8, 8).transpose(2, 3)
    return ordered.reshape(groups, rows).T.contiguous()
