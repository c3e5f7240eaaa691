"""Canonical layouts whose elements are codes of few bits times float32 scales, as fragments.

Codes of 1 to 8 bits with zero points (`Grouped`), floats of four bits (`Microscaled`: doubled they
are whole), of six (`Lookup`, whose table says so) and eight, and codes of four bits into one table
of any numbers (`Lookup`). Scales stay as exact as they come: each is a float32 in the header, for
as many columns as its group has within a unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import cast

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.ggml.codes import Fields
from aphrodite_kernels.backends.triton.ggml.encoding import UNIT, Encoding
from aphrodite_kernels.backends.triton.ggml.fragments import (
    Fragments,
    records_of,
    small_floats,
)
from aphrodite_kernels.layouts import Grouped, Lookup, Microscaled, PackedWeight
from aphrodite_kernels.layouts.grouped import unpack_codes
from aphrodite_kernels.layouts.microscaled import E2M1

PLANES: Mapping[int, tuple[int, int]] = {
    1: (2, 0), 2: (2, 0), 3: (2, 1), 4: (4, 0), 5: (4, 1), 6: (4, 2), 7: (8, 0), 8: (8, 0),
}  # fmt: skip
"""Bits of both planes by the bits of a code. Planes of eight bits have a sign."""

_NARROWEST = 16
"""Columns of a group."""

_LARGEST = 65504.0
"""Of a table, that float16 holds."""

_SIX_BITS = ((3, 2), (2, 3))
"""Bits of exponent and mantissa of the floats of six bits (OCP MX specification 1.0, 5.3.2)."""


@dataclass(frozen=True, slots=True)
class _Headers:
    """How groups of a row's columns lie in units."""

    entry: int
    """Columns that one entry of a header is for."""
    repeats: int
    """Entries of one group."""

    @classmethod
    def of(cls, group: int) -> "_Headers | None":
        """None: groups are too narrow, or begin where no run of 16 columns does."""
        entry = gcd(group, UNIT)
        return cls(entry, group // entry) if entry >= _NARROWEST else None

    def encoding(
        self,
        bits: int,
        zero: int | None,
        *,
        signed: bool = False,
        table: tuple[float, ...] = (),
        floats: tuple[int, int] | None = None,
    ) -> Encoding:
        """With a bias for each group unless there is a zero."""
        low, high = PLANES[bits]
        group = min(self.entry, 2 * _NARROWEST)
        each = 2 if zero is None else 1
        return Encoding(
            low,
            high,
            zero,
            group,
            "floats" if zero is None else "float",
            each * UNIT // self.entry,
            signed=signed,
            table=table,
            floats=floats,
            span=self.entry // group,
        )

    def written(self, scale: Tensor, bias: Tensor | None) -> Tensor:
        """Scales and biases [n, groups] float32 as header bytes."""
        numbers = scale if bias is None else torch.stack((scale, bias), 2)
        return numbers.repeat_interleave(self.repeats, 1).flatten(1).contiguous().view(torch.uint8)


def pack_grouped(weight: PackedWeight) -> PackedWeight:
    """Groups as records; those of fewer than 16 columns, or of an odd number, stay as they are."""
    assert isinstance(weight, Grouped), f"bound to {type(weight).__name__}"
    headers = _Headers.of(weight.group)
    if headers is None:
        return weight
    half = 1 << weight.bits - 1
    signed = PLANES[weight.bits][0] == 8
    taken = half if signed else 0  # off the codes, so that their bytes have a sign
    zero = None if weight.zero is not None else half - taken
    encoding = headers.encoding(weight.bits, zero, signed=signed)

    def fields(start: int, stop: int) -> Fields:
        codes = unpack_codes(weight.codes[start:stop], weight.bits) - taken
        scale = weight.scale[start:stop].float()
        bias = None
        if weight.zero is not None:
            bias = (taken - weight.zero[start:stop].float()) * scale
        return codes, headers.written(scale, bias)

    records = records_of(weight, encoding, fields)
    return Fragments(records, encoding, weight.out_features, weight.in_features, weight.columns)


def pack_lookup(weight: PackedWeight) -> PackedWeight:
    """Codes of four bits into one table, and floats of six, as records; others stay as they are.

    Kernels round the table to the dtype of activations, as they would the elements.
    """
    assert isinstance(weight, Lookup), f"bound to {type(weight).__name__}"
    headers = _Headers.of(weight.group)
    if headers is None or len(weight.table) > 1:
        return weight
    if weight.bits == 4:
        table = tuple(cast("list[float]", weight.table[0].tolist()))
        if not all(abs(value) <= _LARGEST for value in table):
            return weight
        encoding = headers.encoding(4, 0, table=table)
    elif floats := _floats_in(weight.table[0]):
        encoding = headers.encoding(weight.bits, 0, floats=floats)
    else:
        return weight

    def fields(start: int, stop: int) -> Fields:
        codes = unpack_codes(weight.codes[start:stop], weight.bits)
        if weight.scale is None:
            scale = torch.ones(stop - start, 1, device=weight.device)
        else:
            scale = weight.scale[start:stop]
        return codes, headers.written(scale, None)

    records = records_of(weight, encoding, fields)
    return Fragments(records, encoding, weight.out_features, weight.in_features)


def pack_microscaled(weight: PackedWeight) -> PackedWeight:
    """Floats as records; those of eight bits of which one is no number stay as they are."""
    assert isinstance(weight, Microscaled), f"bound to {type(weight).__name__}"
    headers, elements = _Headers.of(weight.group), weight.elements
    halved = elements.dtype == torch.uint8
    if headers is None or not (halved or _are_numbers(elements)):
        return weight
    if halved:
        encoding = headers.encoding(4, 0, table=tuple(2 * number for number in E2M1))
    else:
        encoding = headers.encoding(8, 0, floats=(4, 3))

    def fields(start: int, stop: int) -> Fields:
        scale = weight.scale[start:stop].float() / (2 if halved else 1)
        if weight.row_scale is not None:
            scale = scale * weight.row_scale[start:stop]
        part = elements[start:stop]
        codes = unpack_codes(part, 4) if halved else part.view(torch.uint8)
        return codes, headers.written(scale, None)

    records = records_of(weight, encoding, fields)
    return Fragments(records, encoding, weight.out_features, weight.in_features)


def _floats_in(table: Tensor) -> tuple[int, int] | None:
    """Bits of exponent and mantissa, if a table has the number of each pattern of six bits."""
    for kind in _SIX_BITS:
        if torch.equal(table, small_floats(*kind).to(table.device)):
            return kind
    return None


def _are_numbers(elements: Tensor) -> bool:
    """Whether none of float8_e4m3fn is NaN, whose pattern would be a number to kernels."""
    return not bool((elements.view(torch.uint8) & 127 == 127).any())
