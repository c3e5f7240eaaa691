"""Products with weights that are widened as they are read: csrc/cpu/widened_product.h."""

from abc import abstractmethod
from ctypes import c_int64, c_void_p
from typing import Any

from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import MatMul


class WidenedArguments(Arguments):
    """First fields of such a product's arguments; a subclass appends those of its weight."""

    _fields_ = (
        ("x", c_void_p),
        ("bias", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("result_stride", c_int64),
    )


class Widened(Sourced):
    """A weight that such a product reads."""

    @abstractmethod
    def parts(self) -> tuple[Tensor, ...]:
        """The tensors that kernels read."""

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """What the product's arguments say of the weight."""


def widened_matmul_on(
    runtime: Runtime, name: str, kind: type[Widened], arguments: type[WidenedArguments]
) -> MatMul:
    """The product `name` with weights of a kind, in float32, for any number of rows."""
    run = runtime.op(name)

    def widened_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, kind), f"bound to {type(weight).__name__}"
        width = weight.out_features
        require_rows("x", x, None, weight.in_features)
        if bias is not None:
            require_whole("bias", bias, width)
        result = runtime.empty(x.shape[0], width)
        filled = arguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            result_stride=width,
            **weight.fields(),
        )
        run(filled, x, *weight.parts(), result, *(() if bias is None else (bias,)))
        return result

    return widened_matmul
