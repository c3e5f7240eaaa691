"""Matrix products with weights: alone, and several of one input."""

from collections.abc import Sequence

import torch
from aphrodite_kernels.backend import Backend
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.protocols import Inputs
from aphrodite_kernels.rounded import Rounded, Rows
from torch import Tensor


class Linear:
    """y = x Wᵀ (+ bias), with the product for W's layout bound once.

    Args:
        weight: as the backend prepared it.
    """

    def __init__(self, backend: Backend, weight: PackedWeight, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = None if bias is None else bias.to(backend.device)
        self._matmul = backend.matmul_for(self._weight)
        self._rounded_matmul = backend.rounded_matmul
        self.inputs = backend.inputs_of(self._weight)
        """The ops that make what this multiplies, bound once as well."""

    @property
    def out_features(self) -> int:
        return self._weight.out_features

    def __call__(self, x: Rows) -> Tensor:
        """[T, K] -> [T, N]."""
        if isinstance(x, Rounded):
            return self._rounded_matmul(x, self._weight, self._bias)
        return self._matmul(x, self._weight, self._bias)


class Parallel:
    """Projections of one input: neighbours of one layout are a single product, split by views.

    Of the layout of their file, or of the backend's own: that may stack what the file's does not.
    """

    def __init__(
        self, backend: Backend, parts: Sequence[tuple[PackedWeight, Tensor | None]]
    ) -> None:
        joined = _stack([(weight, bias, [weight.out_features]) for weight, bias in parts])
        prepared = [(backend.prepare(weight), bias, widths) for weight, bias, widths in joined]
        self._products = [
            (Linear(backend, weight, bias), widths) for weight, bias, widths in _stack(prepared)
        ]
        first, *others = self._products
        several = Inputs(backend.add_rms_norm, backend.gated)
        self.inputs = several if others else first[0].inputs
        """The ops that make what these multiply."""

    def __call__(self, x: Rows) -> tuple[Tensor, ...]:
        """[T, K] -> one [T, N] per projection; rows may be strided."""
        outputs: list[Tensor] = []
        for linear, widths in self._products:
            y = linear(x)
            outputs.extend(torch.split(y, widths, -1) if len(widths) > 1 else (y,))
        return tuple(outputs)


_Joined = tuple[PackedWeight, Tensor | None, list[int]]
"""Weight, bias, and the widths of what they were made of."""


def _stack(parts: Sequence[_Joined]) -> list[_Joined]:
    """Join each weight with the one before it where the layout allows."""
    joined: list[_Joined] = []
    for weight, bias, widths in parts:
        if joined and (bias is None) == (joined[-1][1] is None):
            above, bias_above, widths_above = joined[-1]
            try:
                stacked = type(above).stack([above, weight])
            except LayoutError:
                joined.append((weight, bias, widths))  # another layout: a product of its own
                continue
            both = None if bias is None or bias_above is None else torch.cat([bias_above, bias])
            joined[-1] = (stacked, both, widths_above + widths)
            continue
        joined.append((weight, bias, widths))
    return joined
