"""Codes whose scales are shared by rows that lie apart, widened as they are read."""

from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass, replace
from typing import Self

import torch

from aphrodite_kernels.backends.cpu.numbers import number_of
from aphrodite_kernels.backends.cpu.product import Operand, ProductArguments, product_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import MatMul


@dataclass(frozen=True, eq=False)
class RowScaled(Sourced):
    """`source`, whose tensors are contiguous, scales and zero points of one dtype."""

    source: RowGrouped

    @classmethod
    def of(cls, source: PackedWeight) -> Self | None:
        """The weight."""
        if not isinstance(source, RowGrouped):
            return None
        dtype = source.scale.dtype if source.scale.dtype == source.zero.dtype else torch.float32
        codes, scale, zero, group = (
            source.codes.contiguous(),
            source.scale.to(dtype).contiguous(),
            source.zero.to(dtype).contiguous(),
            source.group.contiguous(),
        )
        return cls(replace(source, codes=codes, scale=scale, zero=zero, group=group))


class RowGroupedMatmulArguments(ProductArguments):
    """Of csrc/cpu/ops/floats/row_grouped_matmul.cpp."""

    _fields_ = (
        ("codes", c_void_p),
        ("scale", c_void_p),
        ("zero", c_void_p),
        ("group", c_void_p),
        ("depth", c_int64),
        ("width", c_int64),
        ("bits", c_int32),
        ("number", c_int32),
    )


def row_grouped_matmul_on(runtime: Runtime) -> MatMul:
    """The product with such codes, in float32, for any number of rows."""
    return product_on(runtime, "row_grouped_matmul", RowGroupedMatmulArguments, _operand_of)


def _operand_of(weight: PackedWeight) -> Operand:
    assert isinstance(weight, RowScaled), f"bound to {type(weight).__name__}"
    source = weight.source
    fields = {
        "codes": source.codes.data_ptr(),
        "scale": source.scale.data_ptr(),
        "zero": source.zero.data_ptr(),
        "group": source.group.data_ptr(),
        "depth": weight.in_features,
        "width": weight.out_features,
        "bits": source.bits,
        "number": number_of("a scale", source.scale.dtype),
    }
    return Operand((source.codes, source.scale, source.zero, source.group), fields)
