"""Eight-bit floats with scales for tensors, channels and blocks."""

from collections.abc import Callable

import torch

from aphrodite_kernels.layouts import Scaled
from aphrodite_kernels.testing.case import Rounding
from aphrodite_kernels.testing.kinds import WeightKind


def random_scaled(
    rows: int, columns: int, block: tuple[int, int], generator: torch.Generator
) -> Scaled:
    """A weight of random eight-bit floats, the largest about 1, with random scales."""
    codes = (100 * torch.randn(rows, columns, generator=generator)).clamp(-448, 448)
    shape = (-(-rows // block[0]), -(-columns // block[1]))
    scale = (0.5 + torch.rand(shape, generator=generator)) / 448
    return Scaled(codes.to(torch.float8_e4m3fn), scale, block)


def _kind(name: str, block: Callable[[int, int], tuple[int, int]]) -> WeightKind:
    return WeightKind(
        f"float8_by_{name}",
        lambda rows, columns, generator: random_scaled(
            rows, columns, block(rows, columns), generator
        ),
        rounding=Rounding.FLOATS,
    )


KINDS = (
    _kind("tensor", lambda rows, columns: (rows, columns)),
    _kind("channel", lambda _, columns: (1, columns)),
    _kind("block", lambda _, __: (128, 128)),
)
