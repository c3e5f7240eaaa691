"""Small floats with a scale for every few columns of a row: MXFP4, NVFP4, MXFP8.

Elements are E2M1 (two to a byte, the even column in the low four bits) or E4M3; scales are powers
of two (E8M0) or E4M3. OCP Microscaling Formats (MX) specification 1.0, sections 5.2, 5.3 and 6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.base import PackedWeight, check_division, share
from aphrodite_kernels.layouts.grouped import unpack_codes

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The number that each four bits stand for."""

_SCALES = (torch.float8_e8m0fnu, torch.float8_e4m3fn)


@dataclass(frozen=True, eq=False)
class Microscaled(PackedWeight):
    """W[n, k] = element[n, k] * scale[n, k // group] * row_scale[n]."""

    elements: Tensor
    """[N, K / 2] uint8 of two E2M1 each, or [N, K] float8_e4m3fn."""
    scale: Tensor
    """[N, K / group] float8_e8m0fnu or float8_e4m3fn."""
    group: int
    row_scale: Tensor | None = None
    """[N, 1] float32; None: all are 1."""

    def __post_init__(self) -> None:
        if self.elements.dtype not in (torch.uint8, torch.float8_e4m3fn) or self.elements.ndim != 2:
            raise LayoutError(
                "microscaled elements are a matrix of uint8 (two to a byte) or float8_e4m3fn, not "
                f"{self.elements.dtype} of {self.elements.ndim} dimensions"
            )
        shape = (self.out_features, self.in_features)
        expected = (shape[0], shape[1] // self.group)
        if self.scale.dtype not in _SCALES or tuple(self.scale.shape) != expected:
            raise LayoutError(
                f"the scales of {list(shape)} elements in groups of {self.group} are "
                f"{list(expected)} float8_e8m0fnu or float8_e4m3fn, not {list(self.scale.shape)} "
                f"{self.scale.dtype}"
            )
        if shape[1] % self.group or self.group % 2:
            raise LayoutError(f"{shape[1]} columns do not divide into even groups of {self.group}")
        rows = self.row_scale
        if rows is not None and (rows.dtype != torch.float32 or tuple(rows.shape) != (shape[0], 1)):
            raise LayoutError(
                f"the scales of {shape[0]} rows are [{shape[0]}, 1] float32, not "
                f"{list(rows.shape)} {rows.dtype}"
            )

    @property
    def _per_byte(self) -> int:
        return 2 if self.elements.dtype == torch.uint8 else 1

    @property
    def in_features(self) -> int:
        return self.elements.shape[1] * self._per_byte

    @property
    def out_features(self) -> int:
        return self.elements.shape[0]

    @property
    def nbytes(self) -> int:
        rows = 0 if self.row_scale is None else self.row_scale.nbytes
        return self.elements.nbytes + self.scale.nbytes + rows

    @property
    def device(self) -> torch.device:
        return self.elements.device

    def _wide(self) -> Tensor:
        if self._per_byte == 1:
            return self.elements.float()
        codes = unpack_codes(self.elements, 4)
        return torch.tensor(E2M1, device=self.device)[codes.int()]

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        scale = self.scale.float()
        if self.row_scale is not None:
            scale = scale * self.row_scale
        return (self._wide() * scale.repeat_interleave(self.group, 1)).to(dtype)

    def rows(self, index: Tensor) -> Self:
        elements = _of_bytes(self.elements.view(torch.uint8)[index], self.elements)
        scale = _of_bytes(self.scale.view(torch.uint8)[index], self.scale)
        rows = None if self.row_scale is None else self.row_scale[index]
        return type(self)(elements, scale, self.group, rows)

    def shard(self, axis: int, rank: int, size: int) -> Self:
        unit = self.group if axis == 1 else 1
        check_division(self.in_features if axis == 1 else self.out_features, unit, size)
        part = partial(share, axis=axis, rank=rank, size=size)
        rows = self.row_scale
        if rows is not None and axis == 0:
            rows = part(rows)
        return type(self)(part(self.elements), part(self.scale), self.group, rows)

    @classmethod
    def stack(cls, weights: Sequence[PackedWeight]) -> Self:
        parts = cls.all_of(weights)
        kinds = {
            (part.in_features, part.group, part.elements.dtype, part.scale.dtype) for part in parts
        }
        if len(kinds) != 1:
            raise LayoutError(f"cannot stack microscaled weights of different kinds: {kinds}")
        first = parts[0]
        elements = torch.cat([part.elements.view(torch.uint8) for part in parts])
        scale = torch.cat([part.scale.view(torch.uint8) for part in parts])
        rows = None
        if any(part.row_scale is not None for part in parts):
            rows = torch.cat([part._row_scales() for part in parts])
        elements, scale = _of_bytes(elements, first.elements), _of_bytes(scale, first.scale)
        return cls(elements, scale, first.group, rows)

    def _row_scales(self) -> Tensor:
        if self.row_scale is not None:
            return self.row_scale
        return torch.ones(self.out_features, 1, device=self.device)

    def to(self, device: torch.device) -> Self:
        rows = None if self.row_scale is None else self.row_scale.to(device)
        return type(self)(self.elements.to(device), self.scale.to(device), self.group, rows)


def _of_bytes(chosen: Tensor, like: Tensor) -> Tensor:
    """Torch cannot index eight-bit floats on every device; as bytes it can."""
    return chosen.view(like.dtype)
