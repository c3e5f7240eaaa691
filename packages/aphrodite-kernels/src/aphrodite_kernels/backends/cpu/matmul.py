"""Products with a weight: int8 activations for tiles, float32 for unquantised weights."""

from ctypes import c_int32, c_int64, c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.numbers import number_of
from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
from aphrodite_kernels.backends.cpu.tile_format import FormatArgument
from aphrodite_kernels.backends.cpu.tiled import Tiled
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_kernels.protocols import MatMul


class DenseMatmulArguments(Arguments):
    """Of csrc/cpu/ops/dense_matmul.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("weight_stride", c_int64),
        ("result_stride", c_int64),
        ("depth", c_int64),
        ("width", c_int64),
        ("number", c_int32),
    )


class TiledMatmulArguments(Arguments):
    """Of csrc/cpu/ops/tiled_matmul.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("columns", c_void_p),
        ("bias", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("result_stride", c_int64),
        ("blocks", c_int64),
        ("width", c_int64),
        ("format", FormatArgument),
    )


def tiled_matmul_on(runtime: Runtime) -> MatMul:
    """The product with a quantised weight, for any number of rows."""
    run = runtime.op("tiled_matmul")

    def tiled_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Tiled), f"bound to {type(weight).__name__}"
        require_rows("x", x, None, weight.in_features)
        if bias is not None:
            require_whole("bias", bias, weight.outputs)
        result = runtime.empty(x.shape[0], weight.outputs)
        arguments = TiledMatmulArguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            codes=weight.codes.data_ptr(),
            scales=weight.scales.data_ptr(),
            columns=None if weight.columns is None else weight.columns.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            result_stride=weight.outputs,
            blocks=weight.codes.shape[1],
            width=weight.outputs,
            format=weight.format.argument(),
        )
        parts = (x, *weight.parts(), result)
        run(arguments, *parts, *(() if bias is None else (bias,)))
        return result

    return tiled_matmul


def dense_matmul_on(runtime: Runtime) -> MatMul:
    """The product with an unquantised weight, in float32, for any number of rows."""
    run = runtime.op("dense_matmul")

    def dense_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Dense), f"bound to {type(weight).__name__}"
        width, depth = weight.weight.shape
        require_rows("x", x, None, depth)
        require_rows("weight", weight.weight, width, depth, dtype=weight.weight.dtype)
        if bias is not None:
            require_whole("bias", bias, width)
        result = runtime.empty(x.shape[0], width)
        arguments = DenseMatmulArguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            weight=weight.weight.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            weight_stride=weight.weight.stride(0),
            result_stride=width,
            depth=depth,
            width=width,
            number=number_of("weight", weight.weight.dtype),
        )
        parts = (x, weight.weight, result)
        run(arguments, *parts, *(() if bias is None else (bias,)))
        return result

    return dense_matmul
