"""AWQ (arXiv 2306.00978): four bits with zero points, in the arrangement `gemm`.

Input features with large activations are multiplied up before weights are rounded, by a power of
their mean magnitude, and the inputs divided by as much; the power is the one that loses least over
the calibration text. Scales are then cut where that loses less.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from aphrodite_kernels.layouts.grouped import pack_codes
from torch import Tensor

from aphrodite_quant.errors import FormatError
from aphrodite_quant.grid import Coded, Grid, nearest
from aphrodite_quant.quantizer import Options, Quantizer, Statistics, common_group

_BITS = 4
_PER_WORD = 8
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Of each nibble of a word, the lowest first: its output feature."""
_POWERS = 20
_TRIED_ROWS = 512
"""Of each weight, evenly spread, that a power is tried on."""


def quantizer(options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
    """FormatError if bits, group size or a shape are none of the format's."""
    options.only("awq", "bits", "group_size", "symmetric")
    if options.bits not in (None, _BITS):
        raise FormatError(f"format awq: bits are 4, found {options.bits}")
    for rows, columns in shapes:
        if rows % _PER_WORD:
            raise FormatError(
                f"format awq: the output features of a weight {[rows, columns]} are not a multiple "
                f"of {_PER_WORD}"
            )
    return Awq(
        group=common_group("awq", options.group_size, shapes),
        symmetric=options.symmetric is True,
    )


@dataclass(frozen=True, kw_only=True)
class Awq(Quantizer):
    """The format with its options settled."""

    group: int
    """-1: all input features."""
    symmetric: bool

    calibrated = True
    balances = True

    @property
    def bits_per_weight(self) -> float:
        return _BITS + (16 + _BITS) / max(self.group, 32)

    def config(self, plain: Sequence[str]) -> dict[str, Any]:
        return {
            "quant_method": "awq",
            "bits": _BITS,
            "group_size": self.group,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": list(plain),
        }

    def balance(self, weights: Sequence[Tensor], statistics: Statistics) -> Tensor | None:
        """Powers of the magnitudes, from 0 (nothing) to 1, around a middle of 1."""
        grid = Grid(_BITS, self.symmetric, cuts=1)
        tried = [weight[:: -(-len(weight) // _TRIED_ROWS)] for weight in weights]
        size = statistics.magnitude.clamp(min=1e-4)
        best, least = None, _lost(tried, None, grid, self._group_of(tried[0]), statistics)
        for step in range(1, _POWERS):
            factors = size.pow(step / _POWERS).clamp(min=1e-4)
            factors = factors / (factors.max() * factors.min()).sqrt()
            lost = _lost(tried, factors, grid, self._group_of(tried[0]), statistics)
            if lost < least:
                best, least = factors, lost
        return best

    def quantize(self, weight: Tensor, statistics: Statistics | None) -> dict[str, Tensor]:
        assert statistics is not None, "calibrated"
        importance = statistics.hessian.diagonal().clamp(min=1e-12)
        grid = Grid(_BITS, self.symmetric)
        return packed(nearest(weight, grid, self._group_of(weight), importance))

    def _group_of(self, weight: Tensor) -> int:
        return weight.shape[1] if self.group == -1 else self.group


def packed(coded: Coded) -> dict[str, Tensor]:
    """The format's tensors."""
    return {
        "qweight": _words(coded.codes),
        "qzeros": _words(coded.zero.to(torch.uint8)),
        "scales": coded.scale.T.to(torch.float16).contiguous(),
    }


def _lost(
    weights: Sequence[Tensor],
    factors: Tensor | None,
    grid: Grid,
    group: int,
    statistics: Statistics,
) -> float:
    """Mean of |x W'ᵀ - x Wᵀ|² over the inputs, if `factors` are taken before rounding."""
    lost = 0.0
    for weight in weights:
        wide = weight if factors is None else weight * factors
        parts = wide.unflatten(1, (-1, group))
        rounded = grid.round(parts, *grid.fit(parts)).flatten(1)
        error = (rounded if factors is None else rounded / factors) - weight
        lost += float(((error @ statistics.hessian) * error).sum())
    return lost


def _words(codes: Tensor) -> Tensor:
    """[N, R] uint8 as [R, N / 8] int32."""
    ordered = codes.T.unflatten(1, (-1, _PER_WORD))[..., list(_ORDER)].flatten(1)
    return pack_codes(ordered, _BITS).view(torch.int32)
