"""Weights of a few bits each, with a scale and a zero point for every group of a row's columns.

Scales and zero points keep the floating dtype that they come in; everything is computed in float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight, share

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Codes below 2**bits ([N, K] uint8) as little-endian bit streams [N, K * bits / 8] uint8.

    Raises:
        LayoutError: they are no matrix, or its rows do not fill whole bytes.
    """
    if codes.ndim != 2 or codes.shape[1] * bits % 8:
        raise LayoutError(f"rows of {list(codes.shape)} {bits}-bit codes do not fill whole bytes")
    common = gcd(8, bits)
    words = codes.unflatten(1, (-1, 8 // common)).long()
    word = (words << bits * torch.arange(8 // common, device=codes.device)).sum(-1, keepdim=True)
    parts = word >> 8 * torch.arange(bits // common, device=codes.device)
    return (parts & 255).to(torch.uint8).flatten(1)


def unpack_codes(packed: Tensor, bits: int) -> Tensor:
    """What `pack_codes` packed: [N, K] uint8."""
    common = gcd(8, bits)
    # Seven-bit codes need 56 bits at once; the usual ones fit 32.
    wide = torch.int32 if bits // common < 4 else torch.int64
    parts = packed.unflatten(1, (-1, bits // common)).to(wide)
    shifts = 8 * torch.arange(bits // common, dtype=wide, device=packed.device)
    word = (parts << shifts).sum(-1, keepdim=True, dtype=wide)
    codes = word >> bits * torch.arange(8 // common, dtype=wide, device=packed.device)
    return (codes & (1 << bits) - 1).to(torch.uint8).flatten(1)


@dataclass(frozen=True, eq=False)
class Grouped(PackedWeight):
    """W[n, columns[j]] = (code[n, j] - zero[n, j // group]) * scale[n, j // group]."""

    codes: Tensor
    """[N, K * bits / 8] uint8: the codes of a row as one little-endian bit stream."""
    scale: Tensor
    """[N, K / group] of a floating dtype."""
    zero: Tensor | None
    """[N, K / group] of a floating dtype, perhaps fractional; None: 2**(bits - 1)."""
    bits: int
    group: int
    """Columns that share a scale."""
    columns: Tensor | None = None
    """[K] int64: the input feature that each stored column is for; None: in order."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise LayoutError(f"a grouped weight has codes of 1 to 8 bits, not {self.bits}")
        if self.codes.dtype != torch.uint8 or self.codes.ndim != 2:
            raise LayoutError(
                f"packed codes are a uint8 matrix, not {self.codes.dtype} of "
                f"{self.codes.ndim} dimensions"
            )
        columns = self.in_features
        if self.codes.shape[1] * 8 % self.bits or self.group < 1 or columns % self.group:
            raise LayoutError(
                f"rows of {self.codes.shape[1]} bytes of {self.bits}-bit codes do not divide into "
                f"groups of {self.group}"
            )
        expected = (self.out_features, columns // self.group)
        for name, tensor in (("scale", self.scale), ("zero", self.zero)):
            if tensor is not None and (
                tuple(tensor.shape) != expected or tensor.dtype not in _FLOATS
            ):
                raise LayoutError(
                    f"the {name} of {[self.out_features, columns]} weights in groups of "
                    f"{self.group} is {list(expected)} floating numbers, not "
                    f"{list(tensor.shape)} {tensor.dtype}"
                )
        if self.columns is not None and (
            self.columns.dtype != torch.int64 or tuple(self.columns.shape) != (columns,)
        ):
            raise LayoutError(
                f"the order of {columns} columns is [{columns}] int64, not "
                f"{list(self.columns.shape)} {self.columns.dtype}"
            )

    @classmethod
    def pack(
        cls,
        codes: Tensor,
        scale: Tensor,
        zero: Tensor | None,
        bits: int,
        group: int,
        columns: Tensor | None = None,
    ) -> Self:
        """From codes [N, K] uint8 below 2**bits; `columns` must be a permutation."""
        if codes.numel() and int(codes.max()) >= 1 << bits:
            raise LayoutError(f"code {int(codes.max())} does not fit {bits} bits")
        if columns is not None:
            order = torch.arange(codes.shape[1], device=columns.device)
            if not torch.equal(columns.sort().values, order):
                raise LayoutError(
                    f"the order of {codes.shape[1]} columns does not name each of them once"
                )
        return cls(pack_codes(codes, bits), scale, zero, bits, group, columns)

    @property
    def in_features(self) -> int:
        return self.codes.shape[1] * 8 // self.bits

    @property
    def out_features(self) -> int:
        return self.codes.shape[0]

    @property
    def nbytes(self) -> int:
        tensors = (self.codes, self.scale, self.zero, self.columns)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def unpack(self) -> Tensor:
        """The codes [N, K] uint8, in stored order of columns."""
        return unpack_codes(self.codes, self.bits)

    def zeros(self) -> Tensor:
        """The zero points [N, K / group], also those that are implied."""
        if self.zero is not None:
            return self.zero
        return torch.full_like(self.scale, 1 << self.bits - 1)

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        grouped = self.unpack().unflatten(1, (-1, self.group)).float()
        weight = grouped.sub_(self.zeros().float()[..., None]).mul_(self.scale.float()[..., None])
        stored = weight.flatten(1).to(dtype)
        if self.columns is None:
            return stored
        ordered = torch.empty_like(stored)
        ordered[:, self.columns] = stored
        return ordered

    def rows(self, index: Tensor) -> Self:
        zero = None if self.zero is None else self.zero[index]
        return replace(self, codes=self.codes[index], scale=self.scale[index], zero=zero)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        if axis == 1 and self.columns is not None:
            raise LayoutError("a grouped weight with columns out of order has no parts along them")
        extent = self.out_features if axis == 0 else self.in_features
        part, whole = extent // size, self.group == self.in_features
        aligned = axis == 0 or (part * self.bits % 8 == 0 and (whole or part % self.group == 0))
        if extent % size or not aligned:
            raise LayoutError(
                f"a dimension of {extent} in groups of {self.group} does not divide into "
                f"{size} parts"
            )

        def cut(tensor: Tensor) -> Tensor:
            if axis == 1 and whole and tensor is not self.codes:
                return tensor
            return share(tensor, axis, rank, size)

        zero = None if self.zero is None else cut(self.zero)
        group = part if axis == 1 and whole else self.group
        return replace(self, codes=cut(self.codes), scale=cut(self.scale), zero=zero, group=group)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {(part.in_features, part.bits, part.group) for part in parts}
        if len(kinds) != 1:
            raise LayoutError(
                f"cannot stack grouped weights of different width, bits or group: {kinds}"
            )
        orders = [part.columns for part in parts if part.columns is not None]
        if orders and (
            len(orders) < len(parts) or any(not torch.equal(orders[0], other) for other in orders)
        ):
            raise LayoutError("cannot stack grouped weights whose columns are in different orders")
        implied = all(part.zero is None for part in parts)
        return replace(
            parts[0],
            codes=torch.cat([part.codes for part in parts]),
            scale=torch.cat([part.scale for part in parts]),
            zero=None if implied else torch.cat([part.zeros() for part in parts]),
        )

    def to(self, device: torch.device) -> Self:
        return replace(
            self,
            codes=self.codes.to(device),
            scale=self.scale.to(device),
            zero=None if self.zero is None else self.zero.to(device),
            columns=None if self.columns is None else self.columns.to(device),
        )
