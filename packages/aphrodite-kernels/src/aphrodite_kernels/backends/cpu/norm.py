"""Root-mean-square normalisation."""

from ctypes import c_float, c_int64, c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
from aphrodite_kernels.protocols import AddRMSNorm, RMSNorm


class RMSNormArguments(Arguments):
    """Of ops/rms_norm.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("weight", c_void_p),
        ("result", c_void_p),
        ("heads", c_int64),
        ("width", c_int64),
        ("row_stride", c_int64),
        ("head_stride", c_int64),
        ("eps", c_float),
    )


class AddRMSNormArguments(Arguments):
    """Of ops/add_rms_norm.cpp."""

    _fields_ = (
        ("x", c_void_p),
        ("residual", c_void_p),
        ("weight", c_void_p),
        ("result", c_void_p),
        ("total", c_void_p),
        ("width", c_int64),
        ("x_stride", c_int64),
        ("residual_stride", c_int64),
        ("eps", c_float),
    )


def rms_norm_on(runtime: Runtime) -> RMSNorm:
    """The norm of rows, or of the heads of rows."""
    run = runtime.op("rms_norm")

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        heads = x.unsqueeze(1) if x.dim() == 2 else x
        require_rows("x", heads, None, None, None)
        rows, count, width = heads.shape
        require_whole("weight", weight, width)
        result = runtime.empty(*x.shape)
        arguments = RMSNormArguments(
            rows=rows,
            x=x.data_ptr(),
            weight=weight.data_ptr(),
            result=result.data_ptr(),
            heads=count,
            width=width,
            row_stride=heads.stride(0),
            head_stride=heads.stride(1),
            eps=eps,
        )
        run(arguments, x, weight, result)
        return result

    return rms_norm


def add_rms_norm_on(runtime: Runtime) -> AddRMSNorm:
    """The sum of two matrices, and its norm."""
    run = runtime.op("add_rms_norm")

    def add_rms_norm(
        x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        require_rows("x", x, None, None)
        rows, width = x.shape
        require_rows("residual", residual, rows, width)
        require_whole("weight", weight, width)
        result, total = runtime.empty(rows, width), runtime.empty(rows, width)
        arguments = AddRMSNormArguments(
            rows=rows,
            x=x.data_ptr(),
            residual=residual.data_ptr(),
            weight=weight.data_ptr(),
            result=result.data_ptr(),
            total=total.data_ptr(),
            width=width,
            x_stride=x.stride(0),
            residual_stride=residual.stride(0),
            eps=eps,
        )
        run(arguments, x, residual, weight, result, total)
        return result, total

    return add_rms_norm
