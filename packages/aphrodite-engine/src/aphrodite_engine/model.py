"""The contract between a model and whoever runs it.

A file in models/ gives an `Architecture`: how to read its configuration and, where it is known in
GGUF files, its dialect there. Its configuration, a frozen record, states the facts that memory
planning needs and builds the model from weights. The model maps a `ModelInput` to hidden rows, and
hidden rows to logits, through backend ops alone, so that a step can be recorded and replayed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from aphrodite_quant import MetadataValue
from torch import Tensor

from aphrodite_engine.keys import Keys
from aphrodite_engine.kv import KVSpec
from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.model_input import ModelInput


class Model(Protocol):
    """A decoder that is whole: weights bound, ready to run."""

    @property
    def softcap(self) -> float | None:
        """Final logits become softcap * tanh(logits / softcap); `capped` does that."""
        ...

    def forward(self, input: ModelInput) -> Tensor:
        """Hidden rows [T, hidden] after the last norm; writes this step's keys and values.

        If the input names the tokens that are wanted: of these only, [R, hidden].
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, hidden] -> [R, V]."""
        ...


def capped(logits: Tensor, model: Model) -> Tensor:
    """The final logits, in place."""
    cap = model.softcap
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


class ModelConfig(Protocol):
    """The facts of a model, read once from its configuration."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def mlp_size(self) -> int:
        """Width of the MLP, the widest activation."""
        ...

    @property
    def max_position(self) -> int:
        """Longest context the model was made for."""
        ...

    @property
    def tied(self) -> bool:
        """The head is the embedding."""
        ...

    @property
    def kv_specs(self) -> tuple[KVSpec, ...]:
        """Per layer."""
        ...

    def build(self, weights: Builder, positions: int) -> Model:
        """The model, for contexts of up to `positions` tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufDialect:
    """How GGUF files of an architecture differ from its Hugging Face checkpoints."""

    architecture: str
    """`general.architecture`."""
    permuted: tuple[str, ...] = ()
    """Projections whose rows are interleaved per head: halves (a, b) lie as a0 b0 a1 b1 …"""
    norm_offset: float = 0.0
    """Already added to the weights of every norm."""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Parts of a block that are called other than in the general map: our name -> theirs."""
    keys: Callable[[Keys], dict[str, object]] = lambda metadata: {}
    """Further configuration keys, from the metadata of this architecture."""
    describe: Callable[[Any], dict[str, MetadataValue]] = lambda config: {}
    """The inverse of `keys`: further metadata, from a configuration of this architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a file in models/ gives, as `ARCHITECTURE`."""

    read: Callable[[Keys], ModelConfig]
    """Configuration from the keys of a Hugging Face `config.json`."""
    gguf: GgufDialect | None = None
    gguf_as: str | None = None
    """The model type in whose dialect GGUF files have it, if it has none of its own."""
