"""The gated activations of an MLP."""

from ctypes import c_int32, c_int64, c_void_p

from torch import Tensor

from aphrodite_kernels.backends.cpu.runtime import Arguments, Runtime
from aphrodite_kernels.backends.cpu.tensors import require_rows
from aphrodite_kernels.protocols import Activation, Gated

_ACTIVATIONS = {"silu": 0, "gelu_tanh": 1}


class GatedArguments(Arguments):
    """Of ops/gated.cpp."""

    _fields_ = (
        ("gate", c_void_p),
        ("up", c_void_p),
        ("result", c_void_p),
        ("width", c_int64),
        ("gate_stride", c_int64),
        ("up_stride", c_int64),
        ("activation", c_int32),
    )


def gated_on(runtime: Runtime) -> Gated:
    """The activation of the gate, times up."""
    run = runtime.op("gated")

    def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        require_rows("gate", gate, None, None)
        rows, width = gate.shape
        require_rows("up", up, rows, width)
        result = runtime.empty(rows, width)
        arguments = GatedArguments(
            rows=rows,
            gate=gate.data_ptr(),
            up=up.data_ptr(),
            result=result.data_ptr(),
            width=width,
            gate_stride=gate.stride(0),
            up_stride=up.stride(0),
            activation=_ACTIVATIONS[activation],
        )
        run(arguments, gate, up, result)
        return result

    return gated
