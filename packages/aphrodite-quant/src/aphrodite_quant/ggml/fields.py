"""Writing fields into blocks: half floats, nibbles, bit planes; the inverse of reading them."""

from collections.abc import Sequence

import torch
from aphrodite_kernels.layouts.ggml.fields import constant
from torch import Tensor

from aphrodite_quant.errors import FormatError


def half(scale: Tensor) -> Tensor:
    """Numbers [n] as float16 -> [n, 2] uint8; FormatError if one is beyond its range."""
    narrow = scale.to(torch.float16).reshape(-1, 1)
    if not bool(narrow.isfinite().all()):
        raise FormatError(
            "a block of weights needs a scale beyond float16: choose a type such as BF16"
        )
    return narrow.clone(memory_format=torch.contiguous_format).view(torch.uint8)


def merged(fields: Tensor, shifts: Sequence[int]) -> Tensor:
    """Integers [..., len(shifts), m] -> [..., m] uint8: the first in the lowest bits."""
    shift = constant(tuple(shifts), torch.int32, fields.device)
    return (fields.int() << shift[:, None]).sum(-2).to(torch.uint8)


def joined(fields: Tensor, shifts: Sequence[int]) -> Tensor:
    """Integers [..., m * len(shifts)] -> [..., m] uint8: all of the first field, then the next."""
    parts = fields.unflatten(-1, (-1, len(shifts)))
    return merged(parts.transpose(-1, -2), shifts)


def runs(codes: Tensor, shifts: Sequence[int], run: int) -> Tensor:
    """Codes [n, m], of which each `len(shifts) * run` share `run` bytes -> [n, bytes] uint8."""
    return merged(codes.view(len(codes), -1, len(shifts), run), shifts).flatten(1)
