"""Weights with outliers beside: the product with the weight, to which theirs is added."""

from ctypes import c_int64, c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.fallback import any_embed_on
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_kernels.protocols import Embed, Embeds, MatMul, MatMuls


class AddSparseArguments(Arguments):
    """Of csrc/cpu/ops/floats/add_sparse.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("starts", c_void_p),
        ("columns", c_void_p),
        ("values", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("width", c_int64),
    )


def outlying_matmul_on(runtime: Runtime, products: MatMuls) -> MatMul:
    """The product, of a weight of a layout that one of `products` multiplies."""
    add_sparse = runtime.op("add_sparse")

    def outlying_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Outlying), f"bound to {type(weight).__name__}"
        result = products[type(weight.weight)](x, weight.weight, bias)
        outliers = weight.outliers
        arguments = AddSparseArguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            starts=outliers.starts.data_ptr(),
            columns=outliers.columns.data_ptr(),
            values=outliers.values.data_ptr(),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            width=result.shape[1],
        )
        add_sparse(arguments, x, outliers.starts, outliers.columns, outliers.values, result)
        return result

    return outlying_matmul


def outlying_rows_on(runtime: Runtime, look_ups: Embeds) -> Embed:
    """The look-up of rows, to which those of the outliers are added without a kernel."""
    any_embed = any_embed_on(runtime)

    def outlying_rows(tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        assert isinstance(weight, Outlying), f"bound to {type(weight).__name__}"
        found = look_ups.get(type(weight.weight), any_embed)(tokens, weight.weight, 1.0)

        def added(rows: int) -> Tensor:
            return (found[:rows] + weight.outliers.looked_up(tokens[:rows].long())) * scale

        return runtime.island(added, (len(tokens), weight.in_features))

    return outlying_rows
