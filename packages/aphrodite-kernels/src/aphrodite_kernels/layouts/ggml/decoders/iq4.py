"""Four-bit codes into a fixed, non-linear table of sixteen values."""

import torch
from torch import Tensor

from aphrodite_kernels.layouts.ggml.fields import constant, half, interleaved, planes
from aphrodite_kernels.layouts.ggml.types import GgmlType

VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What codes stand for."""


def iq4_nl(blocks: Tensor) -> Tensor:
    """Blocks of 32: scale, 16 bytes of codes."""
    return half(blocks, 0) * _look_up(blocks[:, 2:])


def iq4_xs(blocks: Tensor) -> Tensor:
    """Blocks of 256: scale, eight 6-bit scales (high pairs, then low nibbles), codes."""
    high = interleaved(blocks[:, 2:4], (0, 2, 4, 6), 3)
    low = interleaved(blocks[:, 4:8], (0, 4), 15)
    scales = half(blocks, 0) * ((low | high << 4).float() - 32)
    return (scales.unsqueeze(-1) * _look_up(blocks[:, 8:]).view(-1, 8, 32)).flatten(1)


def _look_up(data: Tensor) -> Tensor:
    """Each 16 bytes hold 32 codes, low nibbles first."""
    values = constant(VALUES, torch.float32, data.device)
    return values[planes(data.reshape(len(data), -1, 16), (0, 4), 15).flatten(1).int()]


DECODERS = {GgmlType.IQ4_NL: iq4_nl, GgmlType.IQ4_XS: iq4_xs}
