"""Products with a weight: int8 activations for tiles, float32 for unquantised weights."""

from ctypes import c_int32, c_int64, c_void_p

from aphrodite_kernels.backends.cpu.numbers import number_of
from aphrodite_kernels.backends.cpu.product import Operand, ProductArguments, product_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.backends.cpu.tensors import address, require_rows
from aphrodite_kernels.backends.cpu.tile_format import FormatArgument
from aphrodite_kernels.backends.cpu.tiled import Tiled
from aphrodite_kernels.layouts import Dense, PackedWeight
from aphrodite_kernels.protocols import MatMul


class DenseMatmulArguments(ProductArguments):
    """Of csrc/cpu/ops/dense_matmul.cpp."""

    _fields_ = (
        ("weight", c_void_p),
        ("weight_stride", c_int64),
        ("depth", c_int64),
        ("width", c_int64),
        ("number", c_int32),
    )


class TiledMatmulArguments(ProductArguments):
    """Of csrc/cpu/ops/tiled_matmul.cpp."""

    _fields_ = (
        ("codes", c_void_p),
        ("scales", c_void_p),
        ("columns", c_void_p),
        ("blocks", c_int64),
        ("width", c_int64),
        ("format", FormatArgument),
    )


def tiled_matmul_on(runtime: Runtime) -> MatMul:
    """The product with a quantised weight, for any number of rows."""
    return product_on(runtime, "tiled_matmul", TiledMatmulArguments, _tiled)


def dense_matmul_on(runtime: Runtime) -> MatMul:
    """The product with an unquantised weight, in float32, for any number of rows."""
    return product_on(runtime, "dense_matmul", DenseMatmulArguments, _dense)


def _tiled(weight: PackedWeight) -> Operand:
    assert isinstance(weight, Tiled), f"bound to {type(weight).__name__}"
    fields = {
        "codes": weight.codes.data_ptr(),
        "scales": weight.scales.data_ptr(),
        "columns": address(weight.columns),
        "blocks": weight.codes.shape[1],
        "width": weight.outputs,
        "format": weight.format.argument(),
    }
    return Operand(weight.parts(), fields)


def _dense(weight: PackedWeight) -> Operand:
    assert isinstance(weight, Dense), f"bound to {type(weight).__name__}"
    matrix = weight.weight
    require_rows("weight", matrix, *matrix.shape, dtype=matrix.dtype)
    fields = {
        "weight": matrix.data_ptr(),
        "weight_stride": matrix.stride(0),
        "depth": matrix.shape[1],
        "width": matrix.shape[0],
        "number": number_of("weight", matrix.dtype),
    }
    return Operand((matrix,), fields)
