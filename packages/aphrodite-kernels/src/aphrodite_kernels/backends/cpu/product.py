"""What products of rows with a weight share: csrc/cpu/product.h, and the checks before it."""

from collections.abc import Callable
from ctypes import c_int64, c_void_p
from typing import Any, NamedTuple

from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import address, require_rows, require_whole
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.protocols import MatMul


class ProductArguments(Arguments):
    """First fields of every product's arguments; a subclass appends those of its weight."""

    _fields_ = (
        ("x", c_void_p),
        ("bias", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("result_stride", c_int64),
    )


class Operand(NamedTuple):
    """A weight as a product takes it."""

    parts: tuple[Tensor, ...]
    """The tensors that kernels read."""
    fields: dict[str, Any]
    """What the product's arguments say of them."""


def product_on(
    runtime: Runtime,
    name: str,
    arguments: type[ProductArguments],
    operand_of: Callable[[PackedWeight], Operand],
) -> MatMul:
    """The product `name` with the weights of a layout, for any number of float32 rows."""
    run = runtime.op(name)

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        parts, fields = operand_of(weight)
        width = weight.out_features
        require_rows("x", x, None, weight.in_features)
        if bias is not None:
            require_whole("bias", bias, width)
        result = runtime.empty(x.shape[0], width)
        filled = arguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            bias=address(bias),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            result_stride=width,
            **fields,
        )
        run(filled, x, *parts, result, *(() if bias is None else (bias,)))
        return result

    return matmul
