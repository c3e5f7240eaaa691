"""What quantisations share: slabs of rows, cutting rows into groups, and powers of two for them."""

from collections.abc import Callable
from typing import TypeVar

import torch
from aphrodite_kernels.layouts import Dense, PackedWeight
from torch import Tensor

from aphrodite_quant.errors import FormatError

_SLAB = 1 << 19
"""Weights quantised at a time: their float32 and float64 copies are small beside a layer."""

Packed = TypeVar("Packed", bound=PackedWeight)


def by_slabs(weight: Dense, quantize: Callable[[Dense], Packed]) -> Packed:
    """The rows as `quantize` packs them, some at a time; each row alone says what becomes of it."""
    height = max(1, _SLAB // weight.in_features)
    slabs = [quantize(Dense(part)) for part in torch.split(weight.weight, height)]
    return type(slabs[0]).stack(slabs) if len(slabs) > 1 else slabs[0]


def grouped(weight: Dense, group: int, name: str) -> Tensor:
    """The weight as [N, K / group, group] float32; FormatError if K is not a multiple."""
    if weight.in_features % group:
        raise FormatError(
            f"a weight {[weight.out_features, weight.in_features]} cannot become {name}: "
            f"its columns are not a multiple of {group}; choose fp8 or int8"
        )
    return weight.weight.float().unflatten(1, (-1, group))


def power_of_two(groups: Tensor, largest: int) -> Tensor:
    """For each group that of its largest number, less `largest`, as exponents [N, K / group] int32.

    OCP Microscaling specification 1.0, section 6.3: `largest` is the exponent of the largest number
    that an element can be.
    """
    size = groups.abs().amax(2)
    return (size.frexp().exponent - 1 - largest).clamp(-127, 127).where(size > 0, -127)


def times_power(groups: Tensor, exponent: Tensor) -> Tensor:
    """Each group times two to its exponent, in float64: exact."""
    return groups.double() * torch.exp2(exponent.double())[..., None]


def as_e8m0(exponent: Tensor) -> Tensor:
    """Exponents as float8_e8m0fnu."""
    return (exponent + 127).to(torch.uint8).view(torch.float8_e8m0fnu)
