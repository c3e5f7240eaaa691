"""The gated MLP (arXiv 2002.05202)."""

from aphrodite_kernels.protocols import Activation
from aphrodite_kernels.rounded import Rows
from torch import Tensor

from aphrodite_engine.keys import Keys
from aphrodite_engine.layers.builder import Builder

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


def read_activation(keys: Keys, key: str, default: str) -> Activation:
    """The activation that a configuration names."""
    name = keys.text(key, default)
    if name not in _ACTIVATIONS:
        raise keys.wrong(key, f"one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


class GatedMLP:
    """down(activation(gate(x)) * up(x))."""

    def __init__(
        self,
        weights: Builder,
        hidden_size: int,
        mlp_size: int,
        activation: Activation,
        *,
        bias: bool = False,
    ) -> None:
        widths = {"gate_proj": mlp_size, "up_proj": mlp_size}
        self._gate_up = weights.parallel(widths, hidden_size, bias=bias)
        self._down = weights.linear("down_proj", (hidden_size, mlp_size), bias=bias)
        self._gated = self._down.inputs.gated
        self._activation: Activation = activation
        self.inputs = self._gate_up.inputs
        """The ops that make x."""

    def __call__(self, x: Rows) -> Tensor:
        """[T, K] -> [T, K]."""
        gate, up = self._gate_up(x)
        return self._down(self._gated(gate, up, self._activation))
