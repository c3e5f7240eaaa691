"""What products with weights of eight bits multiply, rounded where it is made.

A product of many rows rounds its activations; a norm or a gate before it does so on its way out,
to the same bits, and nothing is written in sixteen bits and read again.
"""

from torch import Tensor

from aphrodite_kernels.backends.triton.activation import WIDEST_ROUNDED, gated_rounded
from aphrodite_kernels.backends.triton.dense_tiles import Workspace
from aphrodite_kernels.backends.triton.norm import add_rms_norm_rounded
from aphrodite_kernels.backends.triton.scaled import is_rounded, scales_of
from aphrodite_kernels.layouts import PackedWeight, Scaled
from aphrodite_kernels.protocols import Activation, Inputs, InputsFor
from aphrodite_kernels.rounded import Rows


def scaled_inputs(plain: Inputs, workspace: Workspace, *, overlapped: bool) -> InputsFor:
    """The ops for weights that `scaled_matmul` multiplies; `plain`: those that do not round."""

    def inputs(weight: PackedWeight) -> Inputs:
        scaled = Scaled.all_of([weight])[0]
        depth = scales_of(scaled).depth

        def add_rms_norm(
            x: Tensor, residual: Tensor, weight: Tensor, eps: float
        ) -> tuple[Rows, Tensor]:
            if not is_rounded(x, scaled, workspace):
                return plain.add_rms_norm(x, residual, weight, eps)
            return add_rms_norm_rounded(x, residual, weight, eps, depth, overlapped=overlapped)

        def gated(gate: Tensor, up: Tensor, activation: Activation) -> Rows:
            if gate.shape[1] > WIDEST_ROUNDED or not is_rounded(gate, scaled, workspace):
                return plain.gated(gate, up, activation)
            return gated_rounded(gate, up, activation, depth, overlapped=overlapped)

        return Inputs(add_rms_norm, gated)

    return inputs
