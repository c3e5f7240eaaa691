"""Small floats with scales for every 16 or 32 columns."""

from functools import partial

import torch

from aphrodite_kernels.layouts import Lookup, Microscaled
from aphrodite_kernels.testing.case import Rounding
from aphrodite_kernels.testing.kinds import WeightKind


def _mxfp4(rows: int, columns: int, generator: torch.Generator) -> Microscaled:
    elements = torch.randint(256, (rows, columns // 2), generator=generator).to(torch.uint8)
    return Microscaled(elements, _powers(rows, columns, 122, generator), 32)


def _mxfp8(rows: int, columns: int, generator: torch.Generator) -> Microscaled:
    elements = (100 * torch.randn(rows, columns, generator=generator)).clamp(-448, 448)
    scale = _powers(rows, columns, 116, generator)
    return Microscaled(elements.to(torch.float8_e4m3fn), scale, 32)


def _nvfp4(rows: int, columns: int, generator: torch.Generator) -> Microscaled:
    elements = torch.randint(256, (rows, columns // 2), generator=generator).to(torch.uint8)
    scale = 40 * torch.rand(rows, columns // 16, generator=generator)
    row_scale = (0.5 + torch.rand(rows, 1, generator=generator)) / 300
    return Microscaled(elements, scale.to(torch.float8_e4m3fn), 16, row_scale)


def random_six_bits(
    rows: int, columns: int, generator: torch.Generator, floats: tuple[int, int]
) -> Lookup:
    """Floats of so many bits of exponent and of mantissa, with powers of two for 32 columns."""
    exponent_bits, mantissa_bits = floats
    steps, largest = 1 << mantissa_bits, (1 << exponent_bits) - 1
    sizes = [place / steps for place in range(steps)]
    for exponent in range(largest):
        sizes += [(1 + place / steps) * 2.0**exponent for place in range(steps)]
    unit = 2.0 ** (2 - (1 << exponent_bits - 1))
    table = unit * torch.tensor([*sizes, *(-size for size in sizes)])
    codes = torch.randint(256, (rows, columns * 3 // 4), generator=generator).to(torch.uint8)
    scale = _powers(rows, columns, 122, generator).float()
    return Lookup(codes, table[None], scale, 32)


def _powers(rows: int, columns: int, top: int, generator: torch.Generator) -> torch.Tensor:
    exponents = torch.randint(top - 3, top + 1, (rows, columns // 32), generator=generator)
    return exponents.to(torch.uint8).view(torch.float8_e8m0fnu)


KINDS = (
    WeightKind("mxfp4", _mxfp4, Rounding.STEPS),
    WeightKind("mxfp8", _mxfp8),
    WeightKind("nvfp4", _nvfp4, Rounding.STEPS),
    WeightKind("mxfp6", partial(random_six_bits, floats=(3, 2)), company=False),
)
