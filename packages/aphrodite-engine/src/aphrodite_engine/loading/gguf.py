"""GGUF files as if they were Hugging Face checkpoints: configuration, names, and what the converter
did to the weights, undone.

Everything comes from the metadata and the tensors of the file. What is peculiar to an architecture
stands in the `GgufDialect` beside its model.
"""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_quant import Checkpoint, Weights
from aphrodite_quant.formats.gguf import check_types
from torch import Tensor

from aphrodite_engine.errors import ModelError
from aphrodite_engine.keys import Keys
from aphrodite_engine.model import GgufDialect
from aphrodite_engine.models import find_gguf

_TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_BLOCK = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
NORM = re.compile(r".*norm\.weight")
"""Tensors to which a dialect's `norm_offset` is added."""
ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the rotary frequencies."""
_CONFIG = {
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""Metadata key, after the architecture's name, -> key of config.json."""


@dataclass(frozen=True, slots=True)
class GgufModel:
    """What the metadata says of the model."""

    dialect: GgufDialect
    config: Mapping[str, object]
    """In the words of a Hugging Face config.json."""
    head_dim: int

    def stored_name(self, module: str) -> str | None:
        """The name in the file of a module called `module` in Hugging Face checkpoints."""
        return stored_name(self.dialect, module)


def stored_name(dialect: GgufDialect, module: str) -> str | None:
    """The name in files of a dialect of a module called `module` in Hugging Face checkpoints."""
    if (match := _LAYER.fullmatch(module)) is None:
        return _TOP.get(module)
    layer, part = match.groups()
    name = dialect.names.get(part) or _BLOCK.get(part)
    return None if name is None else f"blk.{layer}.{name}"


@dataclass(frozen=True, slots=True)
class GgufWeights:
    """Weights of a GGUF file as the Hugging Face checkpoint has them."""

    weights: Weights
    model: GgufModel

    def packed(self, name: str, shape: tuple[int, int]) -> PackedWeight:
        """The matrix of layer `name`, its rows in order."""
        weight = self.weights.packed(name, shape)
        if not name.endswith(self.model.dialect.permuted):
            return weight
        return weight.rows(halves(weight.out_features, self.model.head_dim, weight.device))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A plain tensor as float32."""
        tensor = self.weights.tensor(name, shape)
        if self.model.dialect.norm_offset and NORM.fullmatch(name):
            return tensor - self.model.dialect.norm_offset
        if name.removesuffix(".bias").endswith(self.model.dialect.permuted):
            return tensor[halves(len(tensor), self.model.head_dim, tensor.device)]
        return tensor


def halves(rows: int, head_dim: int, device: torch.device) -> Tensor:
    """Row numbers that gather interleaved pairs a0 b0 a1 b1 … of every head into halves a, b."""
    numbers = torch.arange(rows, device=device)
    return numbers.view(-1, head_dim // 2, 2).transpose(1, 2).flatten()


def read_gguf(checkpoint: Checkpoint) -> GgufModel:
    """The model that the metadata of a GGUF file describes, if its tensors can be decoded."""
    check_types(checkpoint.store)
    name = checkpoint.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise ModelError(f"{checkpoint.path}: general.architecture is {name!r}, not a name")
    model_type, architecture = find_gguf(name)
    assert architecture.gguf is not None, "found by its dialect"
    prefix = f"{name}."
    metadata = Keys(
        {
            key.removeprefix(prefix): value
            for key, value in checkpoint.metadata.items()
            if key.startswith(prefix)
        },
        f"{checkpoint.path}: {name}",
    )
    stored = checkpoint.store.names()
    heads = metadata.positive("attention.head_count")
    head_dim = metadata.positive(
        "attention.key_length", metadata.positive("embedding_length") // heads
    )
    config: dict[str, object] = {"model_type": model_type}
    config |= {ours: metadata.value(theirs) for theirs, ours in _CONFIG.items()}
    config |= _facts_of_tensors(checkpoint, stored)
    config |= _rope(checkpoint, metadata, head_dim)
    config |= architecture.gguf.keys(metadata)
    return GgufModel(architecture.gguf, config, head_dim)


def _facts_of_tensors(checkpoint: Checkpoint, stored: Collection[str]) -> dict[str, object]:
    return {
        "vocab_size": checkpoint.store.info("token_embd.weight").shape[0],
        "tie_word_embeddings": "output.weight" not in stored,
        "attention_bias": "blk.0.attn_output.bias" in stored,
        "mlp_bias": "blk.0.ffn_down.bias" in stored,
    }


def _rope(checkpoint: Checkpoint, metadata: Keys, head_dim: int) -> dict[str, object]:
    rotary = metadata.positive("rope.dimension_count", head_dim)
    found: dict[str, object] = {"partial_rotary_factor": rotary / head_dim}
    kind = metadata.text("rope.scaling.type", "none")
    if ROPE_FACTORS in checkpoint.store.names():
        factors = [float(factor) for factor in checkpoint.store.read(ROPE_FACTORS)]
        found["rope_scaling"] = {"rope_type": "divided", "factors": factors}
    elif kind == "linear":
        found["rope_scaling"] = {
            "rope_type": "linear",
            "factor": metadata.number("rope.scaling.factor"),
        }
    elif kind == "yarn":
        factor = metadata.number("rope.scaling.factor")
        magnitude = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        found["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": factor,
            # Relative to yarn's own magnitude there, absolute in Hugging Face's words.
            "attention_factor": magnitude * metadata.number("rope.scaling.attn_factor", 1.0),
            "original_max_position_embeddings": metadata.value(
                "rope.scaling.original_context_length"
            ),
            "beta_fast": metadata.value("rope.scaling.yarn_beta_fast"),
            "beta_slow": metadata.value("rope.scaling.yarn_beta_slow"),
        }
    elif kind != "none":
        raise metadata.wrong("rope.scaling.type", "none, linear or yarn")
    if kind != "yarn" and metadata.number("rope.scaling.attn_factor", 1.0) != 1:
        raise metadata.wrong("rope.scaling.attn_factor", "1, as it must be without yarn")
    return found
