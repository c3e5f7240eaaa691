"""Root-mean-square normalisation."""

from ctypes import c_float, c_int64, c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows, require_whole
from aphrodite_kernels.protocols import RMSNorm


class RMSNormArguments(Arguments):
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


def rms_norm_on(runtime: Runtime) -> RMSNorm:
    """The norm of rows, or of the heads of rows."""
    run = runtime.op("rms_norm")

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        require_rows("x", x, *(None for _ in x.shape))
        heads = x if x.dim() == 3 else x.unsqueeze(1)
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
