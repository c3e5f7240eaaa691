"""The configuration of a model as the metadata of a GGUF file."""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from aphrodite_quant import MetadataValue

from aphrodite_engine.errors import ModelError
from aphrodite_engine.layers.rope import Divided, Linear, Llama3, Rope, Yarn
from aphrodite_engine.model import GgufDialect, ModelConfig

_POSITIONS = 64
"""At which two rotary embeddings are compared."""


@runtime_checkable
class Decoder(Protocol):
    """What the configurations of decoders have in common."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def mlp_size(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...
    @property
    def eps(self) -> float: ...
    @property
    def rope(self) -> Rope: ...
    @property
    def max_position(self) -> int: ...
    @property
    def windows(self) -> tuple[int | None, ...]: ...


def metadata_of(config: Decoder, dialect: GgufDialect) -> dict[str, MetadataValue]:
    """What a file of that dialect says of the model."""
    found: dict[str, MetadataValue] = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position,
        "embedding_length": config.hidden_size,
        "block_count": len(config.windows),
        "feed_forward_length": config.mlp_size,
        "attention.head_count": config.heads,
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.eps,
        "rope.dimension_count": config.rope.rotary,
        "rope.freq_base": config.rope.theta,
    }
    windows = {window for window in config.windows if window is not None}
    if windows:
        found["attention.sliding_window"] = max(windows)
    found |= _scaling(config.rope) | dialect.describe(config)
    return {f"{dialect.architecture}.{key}": value for key, value in found.items()}


def rope_factors(rope: Rope) -> torch.Tensor | None:
    """[rotary / 2] float32, by which a file divides the frequencies; None: it does not."""
    if not isinstance(rope.scaling, Llama3 | Divided):
        return None
    plain = rope.theta ** -(np.arange(0, rope.rotary, 2, dtype=np.float64) / rope.rotary)
    return torch.from_numpy(plain / rope.scaling.apply(plain, rope.theta)).float()


def check_same(wanted: ModelConfig, found: ModelConfig, where: str) -> None:
    """ModelError naming what a file would say otherwise of the model."""
    if wanted.__class__ is not found.__class__:
        raise ModelError(f"{where}: GGUF would make another model of it")
    assert dataclasses.is_dataclass(wanted), "configurations are records"
    for field in dataclasses.fields(wanted):
        left, right = getattr(wanted, field.name), getattr(found, field.name)
        if not _same(left, right):
            raise ModelError(f"{where}: GGUF cannot say that {field.name} is {left}, not {right}")


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-6)
    if isinstance(left, Rope) and isinstance(right, Rope):
        if left.rotary != right.rotary:
            return False
        first, second = (rope.table(_POSITIONS, torch.device("cpu")) for rope in (left, right))
        return torch.allclose(first, second, atol=1e-4)
    return left == right


def _scaling(rope: Rope) -> dict[str, MetadataValue]:
    scaling = rope.scaling
    if isinstance(scaling, Linear):
        return {"rope.scaling.type": "linear", "rope.scaling.factor": scaling.factor}
    if not isinstance(scaling, Yarn):
        return {}
    usual = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": scaling.factor,
        "rope.scaling.attn_factor": scaling.attention_factor / usual,
        "rope.scaling.original_context_length": scaling.original_positions,
        "rope.scaling.yarn_beta_fast": scaling.beta_fast,
        "rope.scaling.yarn_beta_slow": scaling.beta_slow,
    }
