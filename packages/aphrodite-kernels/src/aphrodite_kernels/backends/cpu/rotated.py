"""Weights between transforms: rows are turned before and after the product inside."""

from ctypes import c_int64, c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import address, require_rows, require_whole
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from aphrodite_kernels.protocols import MatMul, MatMuls


class RotationArguments(Arguments):
    """Of csrc/cpu/ops/floats/rotation.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("before", c_void_p),
        ("base", c_void_p),
        ("after", c_void_p),
        ("bias", c_void_p),
        ("result", c_void_p),
        ("x_stride", c_int64),
        ("from_", c_int64),
        ("inner", c_int64),
        ("to", c_int64),
        ("order", c_int64),
        ("across", c_int64),
        ("down", c_int64),
    )


def rotated_matmul_on(runtime: Runtime, products: MatMuls) -> MatMul:
    """The product with a whole rotated weight, of a layout that one of `products` multiplies."""
    run = runtime.op("rotation")

    def rotate(x: Tensor, by: Rotation, bias: Tensor | None, *, back: bool) -> Tensor:
        """Rows before the product (`back`: by the transpose, scaled first), or after it."""
        size = by.inner if back else len(by.scale)
        result = runtime.empty(x.shape[0], size)
        scale = by.scale.data_ptr()
        across, down = (1, 1) if by.base is None else by.base.stride()[:: 1 if back else -1]
        arguments = RotationArguments(
            rows=x.shape[0],
            x=x.data_ptr(),
            before=scale if back else None,
            base=address(by.base),
            after=None if back else scale,
            bias=address(bias),
            result=result.data_ptr(),
            x_stride=x.stride(0),
            from_=x.shape[1],
            inner=by.inner,
            to=size,
            order=1 if by.base is None else len(by.base),
            across=across,
            down=down,
        )
        used = (x, by.scale, by.base, bias, result)
        run(arguments, *(part for part in used if part is not None))
        return result

    def rotated_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        assert isinstance(weight, Rotated), f"bound to {type(weight).__name__}"
        require_rows("x", x, None, weight.in_features)
        if bias is not None:
            require_whole("bias", bias, weight.out_features)
        inputs = rotate(x, weight.right, None, back=True)
        inner = products[type(weight.weight)](inputs, weight.weight)
        return rotate(inner, weight.left, bias, back=False)

    return rotated_matmul
