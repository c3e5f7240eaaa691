"""Scales of sub-blocks that are themselves small integers under a scale of the block.

Blocks [n, s, m]: s sub-blocks of m numbers. The scales of the sub-blocks are rounded, then their
neighbours are tried, and the block's scale is fitted again to the codes; no step is kept that
leaves a larger error.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from aphrodite_quant.ggml.fit import Nearest, as_half, inverse


@dataclass(frozen=True, slots=True)
class Symmetric:
    """x is about unit * scales * values."""

    unit: Tensor
    """[n] as float16 holds it."""
    scales: Tensor
    """[n, s] whole numbers."""
    values: Tensor
    """[n, s, m] numbers that `nearest` gives."""


@dataclass(frozen=True, slots=True)
class Affine:
    """x is about unit * scales * codes - low_unit * minima."""

    unit: Tensor
    low_unit: Tensor
    scales: Tensor
    minima: Tensor
    codes: Tensor


def symmetric(x: Tensor, weight: Tensor, scales: Tensor, nearest: Nearest, least: int) -> Symmetric:
    """Scales [n, s] become integers from `least`, which is negative, to -least - 1."""
    peak = scales.gather(1, scales.abs().argmax(1, keepdim=True)).squeeze(1)
    unit = as_half(peak / least)
    near = (scales * inverse(unit)[:, None]).round().clamp(least, -least - 1)
    whole, values, error = _try_scales(x, weight, unit, near, nearest, least)
    for _ in range(2):
        shape = whole.unsqueeze(2) * values
        fitted = (weight * x * shape).sum((1, 2)) * inverse((weight * shape * shape).sum((1, 2)))
        fitted = as_half(fitted)
        tried = _try_scales(x, weight, fitted, whole, nearest, least)
        better = tried[2].sum(1) < error.sum(1)
        unit = fitted.where(better, unit)
        whole, error = (
            new.where(better[:, None], old) for new, old in ((tried[0], whole), (tried[2], error))
        )
        values = tried[1].where(better[:, None, None], values)
    return Symmetric(unit, whole, values)


def _try_scales(
    x: Tensor, weight: Tensor, unit: Tensor, near: Tensor, nearest: Nearest, least: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best scales beside `near`, the values under them, and the error of each sub-block."""
    best, values = near, torch.zeros_like(x)
    error = torch.full_like(near, torch.inf)
    for step in (0, -1, 1):
        scale = (near + step).clamp(least, -least - 1)
        full = (unit[:, None] * scale).unsqueeze(2)
        value = nearest(x * inverse(full))
        found = (weight * (x - full * value).square()).sum(2)
        better = found < error
        best, error = scale.where(better, best), found.where(better, error)
        values = value.where(better.unsqueeze(2), values)
    return best, values, error


def affine(
    x: Tensor, weight: Tensor, scales: Tensor, minima: Tensor, top: int, most: int
) -> Affine:
    """Scales and minima [n, s], neither negative, become integers up to `most`; codes to `top`."""
    units = torch.stack([as_half(part.amax(1) / most) for part in (scales, minima)], 1)
    near = torch.stack((scales, minima), 1) * inverse(units).unsqueeze(2)
    whole, codes, error = _try_pairs(x, weight, units, near.round().clamp(0, most), top, most)
    for _ in range(2):
        fitted = as_half(_fit_units(x, weight, whole, codes)).clamp(min=0)
        tried = _try_pairs(x, weight, fitted, whole, top, most)
        better = tried[2].sum(1) < error.sum(1)
        units = fitted.where(better[:, None], units)
        whole, codes = (
            new.where(better[:, None, None], old)
            for new, old in ((tried[0], whole), (tried[1], codes))
        )
        error = tried[2].where(better[:, None], error)
    return Affine(units[:, 0], units[:, 1], whole[:, 0], whole[:, 1], codes)


def _try_pairs(
    x: Tensor, weight: Tensor, units: Tensor, near: Tensor, top: int, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best pairs [n, 2, s] beside `near`, the codes under them, the error per sub-block."""
    best, codes = near, torch.zeros_like(x)
    error = torch.full_like(near[:, 0], torch.inf)
    for step in product((0, -1, 1), repeat=2):
        pair = (near + near.new_tensor(step)[:, None]).clamp(0, most)
        scale, minimum = (pair * units.unsqueeze(2)).unsqueeze(3).unbind(1)
        code = ((x + minimum) * inverse(scale)).round().clamp(0, top)
        found = (weight * (x + minimum - scale * code).square()).sum(2)
        better = found < error
        best, error = pair.where(better[:, None], best), found.where(better, error)
        codes = code.where(better.unsqueeze(2), codes)
    return best, codes, error


def _fit_units(x: Tensor, weight: Tensor, whole: Tensor, codes: Tensor) -> Tensor:
    """[n, 2]: the units of scales and minima that leave the least error, codes being given."""
    steep = whole[:, 0].unsqueeze(2) * codes
    low = -whole[:, 1].unsqueeze(2).expand_as(x)
    sums = {
        name: (weight * left * right).sum((1, 2))
        for name, left, right in (
            ("ss", steep, steep), ("sl", steep, low), ("ll", low, low),
            ("sx", steep, x), ("lx", low, x),
        )
    }  # fmt: skip
    spread = sums["ss"] * sums["ll"] - sums["sl"].square()
    solvable = spread > 1e-5 * sums["ss"] * sums["ll"]
    flat = inverse(spread)
    unit = (sums["sx"] * sums["ll"] - sums["lx"] * sums["sl"]) * flat
    low_unit = (sums["lx"] * sums["ss"] - sums["sx"] * sums["sl"]) * flat
    alone = sums["sx"] * inverse(sums["ss"])
    return torch.stack((unit.where(solvable, alone), low_unit.where(solvable, 0.0)), 1)
