# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportAssignmentType=false
# pyright: reportOperatorIssue=false
"""Codes of one to eight bits that other layouts have no place for: tables and groups of rows."""

from dataclasses import dataclass, replace
from typing import Any, Self

import triton
import triton.language as tl

from aphrodite_kernels.backends.triton.looked.frame import Looked, looked_specimens
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.lookup import Lookup
from aphrodite_kernels.layouts.row_grouped import RowGrouped


@dataclass(frozen=True, slots=True)
class ScalarSpec:
    """Codes of so many bits."""

    bits: int
    shared: bool = False
    """One table for all rows."""
    scaled: bool = False

    @property
    def height(self) -> int:
        """Of what is decoded at once."""
        return 1

    @property
    def padded(self) -> int:
        """The same."""
        return 1

    @property
    def width(self) -> int:
        """Codes that fill bytes, up to three of these; else one code."""
        return 8 // self.bits if 8 % self.bits == 0 else 8 if self.bits == 3 else 1


@triton.jit
def codes_at(codes, row, a, there, columns, SPEC: tl.constexpr):
    """Codes [V, A, width] of rows [V] and runs of codes [A] in rows of so many columns."""
    BITS: tl.constexpr = SPEC.bits
    W: tl.constexpr = SPEC.width
    w = tl.arange(0, W)[None, None, :]
    length = columns * BITS // 8
    line = codes + row.to(tl.int64)[:, None] * length
    if W == 1 and BITS != 8:
        byte = a * BITS // 8
        word = tl.load(line + byte[None, :], there, 0).to(tl.int32)
        behind = there & (byte + 1 < length)[None, :]
        word |= tl.load(line + byte[None, :] + 1, behind, 0).to(tl.int32) << 8
        word = word >> (a * BITS % 8)[None, :]
    else:
        BYTES: tl.constexpr = BITS * W // 8
        word = tl.load(line + a[None, :] * BYTES, there, 0).to(tl.int32)
        for byte in tl.static_range(1, BYTES):
            more = tl.load(line + a[None, :] * BYTES + byte, there, 0).to(tl.int32)
            word |= more << (8 * byte)
    return (word[:, :, None] >> (w * BITS)) & ((1 << BITS) - 1)


@triton.jit
def decode_row_groups(parts, v, a, SPEC: tl.constexpr):
    """A decoder. parts: N, K, codes, scales, zero points, and of each place its row and group."""
    W: tl.constexpr = SPEC.width
    rows, columns = parts[0], parts[1]
    there = (v < rows)[:, None] & (a * W < columns)[None, :]
    row = tl.load(parts[5] + v, v < rows, 0)
    group = tl.load(parts[6] + v, v < rows, 0).to(tl.int64)
    code = codes_at(parts[2], row, a, there, columns, SPEC)
    column = (a * W)[None, :, None] + tl.arange(0, W)[None, None, :]
    at = group[:, None, None] * columns + column
    zero = tl.load(parts[4] + at, there[:, :, None], 0.0).to(tl.float32)
    scale = tl.load(parts[3] + at, there[:, :, None], 0.0).to(tl.float32)
    number = (code.to(tl.float32) - zero) * scale
    return tl.reshape(number, (v.shape[0], a.shape[0] * W))


@triton.jit
def decode_tables(parts, v, a, SPEC: tl.constexpr):
    """A decoder. parts: N, K, codes, tables, scales, columns of a scale."""
    W: tl.constexpr = SPEC.width
    rows, columns = parts[0], parts[1]
    there = (v < rows)[:, None] & (a * W < columns)[None, :]
    code = codes_at(parts[2], v, a, there, columns, SPEC)
    if SPEC.shared:
        number = tl.load(parts[3] + code)
    else:
        table = tl.where(v < rows, v, 0) << SPEC.bits
        number = tl.load(parts[3] + table[:, None, None] + code)
    if SPEC.scaled:
        column = (a * W)[None, :, None] + tl.arange(0, W)[None, None, :]
        line = v[:, None, None] * (columns // parts[5])
        number *= tl.load(parts[4] + line + column // parts[5], there[:, :, None], 0.0)
    return tl.reshape(number, (v.shape[0], a.shape[0] * W))


@dataclass(frozen=True, eq=False)
class LookedRowGroups(Looked):
    """Rows of a group are decoded together: they read the same scales."""

    source: RowGrouped

    @property
    def decoder(self) -> Any:
        return decode_row_groups

    @property
    def spec(self) -> ScalarSpec:
        return ScalarSpec(self.source.bits)

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight."""
        if not isinstance(source, RowGrouped):
            return None
        codes, scale, zero = (
            tensor.contiguous() for tensor in (source.codes, source.scale, source.zero)
        )
        kept = replace(source, codes=codes, scale=scale, zero=zero)
        row = source.group.argsort(stable=True)
        beside = (row.int(), source.group[row].int())
        size = (source.out_features, source.in_features)
        return cls(kept, (*size, codes, scale, zero, *beside), row.argsort())


@dataclass(frozen=True, eq=False)
class LookedTables(Looked):
    """Codes into a table of each row, or into one."""

    source: Lookup

    @property
    def decoder(self) -> Any:
        return decode_tables

    @property
    def spec(self) -> ScalarSpec:
        source = self.source
        return ScalarSpec(source.bits, len(source.table) == 1, source.scale is not None)

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight."""
        if not isinstance(source, Lookup):
            return None
        codes, table = source.codes.contiguous(), source.table.contiguous()
        scale = table if source.scale is None else source.scale.contiguous()
        size = (source.out_features, source.in_features)
        return cls(source, (*size, codes, table, scale, source.group), None)


_ROW_GROUPS = ("i32", "i32", "*u8", "*fp16", "*fp16", "*i32", "*i32")
_TABLES = ("i32", "i32", "*u8", "*fp32", "*fp32", "i32")

SPECIMENS = (
    *looked_specimens(decode_row_groups, ScalarSpec(4), _ROW_GROUPS),
    *looked_specimens(decode_row_groups, ScalarSpec(3), _ROW_GROUPS),
    *looked_specimens(decode_tables, ScalarSpec(4), _TABLES),
    *looked_specimens(decode_tables, ScalarSpec(6, shared=True, scaled=True), _TABLES),
)
