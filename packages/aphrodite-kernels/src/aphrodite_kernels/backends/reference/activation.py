"""The gated activations of an MLP."""

from torch import Tensor
from torch.nn import functional

from aphrodite_kernels.protocols import Activation


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) * up."""
    wide = gate.float()
    match activation:
        case "silu":
            active = functional.silu(wide)
        case "gelu_tanh":
            active = functional.gelu(wide, approximate="tanh")
    return (active * up.float()).to(gate.dtype)
