"""Eight-bit floats and integers with scales for tensors, channels and blocks."""

from collections.abc import Callable

import torch

from aphrodite_kernels.layouts import Scaled
from aphrodite_kernels.testing.case import Rounding
from aphrodite_kernels.testing.kinds import WeightKind


def random_scaled(
    rows: int,
    columns: int,
    block: tuple[int, int],
    generator: torch.Generator,
    dtype: torch.dtype = torch.float8_e4m3fn,
) -> Scaled:
    """A weight of random eight bits, the largest about 1, with random scales."""
    limit = 448 if dtype.is_floating_point else 127
    codes = (limit / 4 * torch.randn(rows, columns, generator=generator)).clamp(-limit, limit)
    shape = (-(-rows // block[0]), -(-columns // block[1]))
    scale = (0.5 + torch.rand(shape, generator=generator)) / limit
    return Scaled(codes.to(dtype), scale, block)


def _kind(
    name: str, block: Callable[[int, int], tuple[int, int]], dtype: torch.dtype
) -> WeightKind:
    floating = dtype.is_floating_point
    return WeightKind(
        f"{'float8' if floating else 'int8'}_by_{name}",
        lambda rows, columns, generator: random_scaled(
            rows, columns, block(rows, columns), generator, dtype
        ),
        rounding=Rounding.FLOATS if floating else Rounding.STEPS,
    )


_BLOCKS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "tensor": lambda rows, columns: (rows, columns),
    "channel": lambda _, columns: (1, columns),
    "block": lambda _, __: (128, 128),
}

KINDS = tuple(
    _kind(name, block, dtype)
    for dtype in (torch.float8_e4m3fn, torch.int8)
    for name, block in _BLOCKS.items()
)
