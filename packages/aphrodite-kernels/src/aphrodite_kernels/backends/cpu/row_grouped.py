"""Codes whose scales are shared by rows that lie apart, widened as they are read."""

from ctypes import c_int32, c_int64, c_void_p
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from aphrodite_kernels.backends.cpu.numbers import number_of
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
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


class RowGroupedMatmulArguments(Arguments):
    """Of csrc/cpu/ops/floats/row_grouped_matmul.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("bias", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("result_stride", c_int64),
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
    run = runtime.op("row_grouped_matmul")

    def row_grouped_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, RowScaled), f"bound to {type(weight).__name__}"
        source, width = weight.source, weight.out_features
        require_rows("x", x, None, weight.in_features)
        if bias is not None:
            require_whole("bias", bias, width)
        result = runtime.empty(x.shape[0], width)
        arguments = RowGroupedMatmulArguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            result_stride=width,
            codes=source.codes.data_ptr(),
            scale=source.scale.data_ptr(),
            zero=source.zero.data_ptr(),
            group=source.group.data_ptr(),
            depth=weight.in_features,
            width=width,
            bits=source.bits,
            number=number_of("a scale", source.scale.dtype),
        )
        parts = (x, source.codes, source.scale, source.zero, source.group, result)
        run(arguments, *parts, *(() if bias is None else (bias,)))
        return result

    return row_grouped_matmul
