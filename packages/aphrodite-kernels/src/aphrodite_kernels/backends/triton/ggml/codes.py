"""Reading ggml blocks: the codes in their order along K, and the header bytes of a record.

The decoders in `aphrodite_kernels.layouts.ggml.decoders` say what the bytes of a block mean; here
the same fields are read without being multiplied out.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.layouts.ggml.decoders import fp4, ternary
from aphrodite_kernels.layouts.ggml.decoders.grids import GRIDS
from aphrodite_kernels.layouts.ggml.fields import interleaved, planes

Fields = tuple[Tensor, Tensor]
"""Of blocks [n, block_bytes]: codes [n, block_size] and header bytes [n, any], both uint8."""


def fields_of(blocks: Tensor, kind: GgmlType) -> Fields:
    """The codes and the header of each block."""
    return _READERS[kind](blocks)


def _nibbles(data: Tensor, run: int) -> Tensor:
    """Each `run` bytes hold their low nibbles first, then their high ones."""
    return planes(data.reshape(len(data), -1, run), (0, 4), 15).flatten(1)


def _pairs(data: Tensor) -> Tensor:
    """Each 32 bytes hold 128 values of 2 bits: 32 lowest first."""
    return planes(data.reshape(len(data), -1, 32), (0, 2, 4, 6), 3).flatten(1)


def _bits(data: Tensor) -> Tensor:
    """All of the lowest bits, then up."""
    return planes(data, range(8), 1).flatten(1)


def _four(start: int) -> Callable[[Tensor], Fields]:
    """Blocks of 32: header of `start` bytes, nibbles."""
    return lambda blocks: (_nibbles(blocks[:, start:], 16), blocks[:, :start])


def _five(start: int) -> Callable[[Tensor], Fields]:
    """Blocks of 32: header of `start` bytes, fifth bits, nibbles."""

    def read(blocks: Tensor) -> Fields:
        fifth = interleaved(blocks[:, start : start + 4], range(8), 1)
        return _nibbles(blocks[:, start + 4 :], 16) | fifth << 4, blocks[:, :start]

    return read


def _eight(blocks: Tensor) -> Fields:
    return blocks[:, 2:], blocks[:, :2]


def _q2_k(blocks: Tensor) -> Fields:
    return _pairs(blocks[:, 16:80]), torch.cat((blocks[:, :16], blocks[:, 80:]), 1)


def _q3_k(blocks: Tensor) -> Fields:
    codes = _pairs(blocks[:, 32:96]) | _bits(blocks[:, :32]) << 2
    low = planes(blocks[:, 96:104], (0, 4), 15).flatten(1)
    high = planes(blocks[:, 104:108], (0, 2, 4, 6), 3).flatten(1)
    return codes, _with_unit((low | high << 4) - 32, blocks[:, 108:])


def _q4_k(blocks: Tensor) -> Fields:
    return _nibbles(blocks[:, 16:], 32), _scales_and_minima(blocks)


def _q5_k(blocks: Tensor) -> Fields:
    codes = _nibbles(blocks[:, 48:], 32) | _bits(blocks[:, 16:48]) << 4
    return codes, _scales_and_minima(blocks)


def _q6_k(blocks: Tensor) -> Fields:
    codes = _nibbles(blocks[:, :128], 64) | _pairs(blocks[:, 128:192]) << 4
    return codes, _with_unit(blocks[:, 192:208], blocks[:, 208:])


def _iq4_xs(blocks: Tensor) -> Fields:
    high = interleaved(blocks[:, 2:4], (0, 2, 4, 6), 3)
    low = interleaved(blocks[:, 4:8], (0, 4), 15)
    return _nibbles(blocks[:, 8:], 16), _with_unit((low | high << 4) - 32, blocks[:, :2])


def _of_grid(kind: GgmlType) -> Callable[[Tensor], Fields]:
    """Coordinates, and scales that are odd."""

    def read(blocks: Tensor) -> Fields:
        found, codes = GRIDS[kind].codes(blocks, kind)
        unit = found.unit.to(torch.float16).view(torch.uint8)
        return codes, _with_unit(found.factors.to(torch.uint8), unit)

    return read


def _with_floats(parts_of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Callable[[Tensor], Fields]:
    """Scales as float32."""

    def read(blocks: Tensor) -> Fields:
        scales, codes = parts_of(blocks)
        return codes, scales.contiguous().view(torch.uint8)

    return read


def _scales_and_minima(blocks: Tensor) -> Tensor:
    """Eight scales, eight minima, their units."""
    first, second, third = torch.split(blocks[:, 4:16], 4, 1)
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), 1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), 1)
    return torch.cat((scales, minima, blocks[:, :4]), 1)


def _with_unit(scales: Tensor, unit: Tensor) -> Tensor:
    """Scales and a float16, filled up to whole words."""
    return torch.cat((scales, unit, torch.zeros_like(unit)), 1)


_READERS: Mapping[GgmlType, Callable[[Tensor], Fields]] = {
    GgmlType.Q4_0: _four(2),
    GgmlType.Q4_1: _four(4),
    GgmlType.Q5_0: _five(2),
    GgmlType.Q5_1: _five(4),
    GgmlType.Q8_0: _eight,
    GgmlType.Q2_K: _q2_k,
    GgmlType.Q3_K: _q3_k,
    GgmlType.Q4_K: _q4_k,
    GgmlType.Q5_K: _q5_k,
    GgmlType.Q6_K: _q6_k,
    GgmlType.IQ4_NL: _four(2),
    GgmlType.IQ4_XS: _iq4_xs,
    **{kind: _of_grid(kind) for kind in GRIDS},
    **{kind: _with_floats(parts_of) for kind, parts_of in {**fp4.PARTS, **ternary.PARTS}.items()},
}
