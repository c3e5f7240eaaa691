"""Floats of four bits under a power of two of eight bits."""

from itertools import pairwise

import torch
from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.layouts.ggml.decoders.fp4 import DOUBLED
from aphrodite_kernels.layouts.ggml.fields import constant
from torch import Tensor

from aphrodite_quant.ggml.fields import runs
from aphrodite_quant.ggml.fit import attention

_SIZES = DOUBLED[:8]
_BETWEEN = tuple((low + high) / 2 for low, high in pairwise(_SIZES))


def mxfp4(x: Tensor, importance: Tensor | None) -> Tensor:
    """Exponent, 16 bytes of codes; the exponent is that of the largest number, less 2.

    With importance the exponents beside it are tried as well.
    """
    largest = x.abs().amax(1)
    exponent = (largest.frexp().exponent - 3).clamp(-127, 127).where(largest > 0, -127)
    if importance is not None:
        exponent = _best(x, attention(x, importance), exponent)
    codes = _codes(x, exponent)
    return torch.cat(((exponent + 127).to(torch.uint8)[:, None], runs(codes, (0, 4), 16)), 1)


def _best(x: Tensor, weight: Tensor, start: Tensor) -> Tensor:
    table = constant(_SIZES, torch.float32, x.device)
    best, error = start, torch.full(start.shape, torch.inf, device=x.device)
    for step in (0, 1, -1):
        exponent = (start + step).clamp(-127, 127)
        value = torch.ldexp(table[_codes(x, exponent) & 7], exponent[:, None] - 1)
        found = (weight * (x.abs() - value).square()).sum(1)
        best, error = exponent.where(found < error, best), found.minimum(error)
    return best


def _codes(x: Tensor, exponent: Tensor) -> Tensor:
    """Nearest numbers; of two as near, the smaller; a zero has no sign."""
    scaled = x.double() * torch.exp2(1 - exponent.double())[:, None]
    size = torch.bucketize(scaled.abs(), constant(_BETWEEN, torch.float64, x.device))
    return size + 8 * ((scaled < 0) & (size > 0))


ENCODERS = {GgmlType.MXFP4: mxfp4}
