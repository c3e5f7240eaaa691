"""Random weights for the suite, one file per layout; presence registers."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.testing.case import Rounding


@dataclass(frozen=True, slots=True)
class WeightKind:
    """One way that a layout packs a matrix; a file under `kinds/` has a tuple `KINDS` of them."""

    label: str
    """For names of cases."""
    draw: Callable[[int, int, torch.Generator], PackedWeight]
    """A random weight of some [rows, columns]; its elements are about 1 or smaller."""
    rounding: Rounding = Rounding.NONE
    """Of activations, that products with such a weight may do."""
    widths: tuple[int, ...] = (96, 576)
    """Two numbers of columns, small and odd, that the packing allows."""
    company: bool = True
    """Whether deterministic backends are tried on it; a few kinds stand for a large family."""


def weight_kinds() -> list[WeightKind]:
    """Of every layout, in a fixed order."""
    kinds: list[WeightKind] = []
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        kinds.extend(importlib.import_module(f"{__name__}.{name}").KINDS)
    return kinds
