"""Four-bit codes into a fixed, non-linear table of sixteen values."""

from itertools import pairwise

import torch
from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.layouts.ggml.decoders.iq4 import VALUES
from aphrodite_kernels.layouts.ggml.fields import constant
from torch import Tensor

from aphrodite_quant.ggml.fields import half, joined, runs
from aphrodite_quant.ggml.fit import as_half, attention, fit_scale, inverse
from aphrodite_quant.ggml.nested import symmetric

_BETWEEN = tuple((low + high) / 2 for low, high in pairwise(VALUES))
_OFFSETS = tuple(range(-14, 15, 2))
_REACH = VALUES[0]


def iq4_nl(x: Tensor, importance: Tensor | None) -> Tensor:
    """Blocks of 32: scale, 16 bytes of codes."""
    scale = as_half(fit_scale(x, attention(x, importance), _nearest, _REACH, _OFFSETS))
    codes = _codes(x * inverse(scale)[:, None])
    return torch.cat((half(scale), runs(codes, (0, 4), 16)), 1)


def iq4_xs(x: Tensor, importance: Tensor | None) -> Tensor:
    """Blocks of 256: scale, eight 6-bit scales (high pairs, then low nibbles), codes."""
    parts = x.view(-1, 8, 32)
    weight = attention(parts, None if importance is None else importance.view_as(parts))
    scales = fit_scale(parts, weight, _nearest, _REACH, _OFFSETS)
    found = symmetric(parts, weight, scales, _nearest, -32)
    whole = found.scales.int() + 32
    head = (half(found.unit), joined(whole >> 4, (0, 2, 4, 6)), joined(whole & 15, (0, 4)))
    return torch.cat((*head, runs(_codes(found.values).flatten(1), (0, 4), 16)), 1)


def _codes(x: Tensor) -> Tensor:
    return torch.bucketize(x.contiguous(), constant(_BETWEEN, torch.float32, x.device))


def _nearest(x: Tensor) -> Tensor:
    return constant(VALUES, torch.float32, x.device)[_codes(x)]


ENCODERS = {GgmlType.IQ4_NL: iq4_nl, GgmlType.IQ4_XS: iq4_xs}
