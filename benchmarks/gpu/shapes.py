"""Sizes of models, and what they take: parameters, bytes, arithmetic."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder of the Llama kind, head and embedding apart."""

    name: str
    layers: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int = 131072

    def config(self) -> dict[str, object]:
        """In the words of a Hugging Face config.json."""
        return {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.positions,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        }

    def metadata(self) -> dict[str, int | float | str]:
        """In the words of a GGUF file."""
        return {
            "general.architecture": "llama",
            "llama.block_count": self.layers,
            "llama.embedding_length": self.hidden,
            "llama.feed_forward_length": self.mlp,
            "llama.attention.head_count": self.heads,
            "llama.attention.head_count_kv": self.kv_heads,
            "llama.attention.key_length": self.head_dim,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.context_length": self.positions,
            "llama.rope.freq_base": 500000.0,
        }

    def matrices(self) -> dict[str, tuple[int, int]]:
        """Shape [N, K] by module."""
        outer = {"model.embed_tokens": (self.vocabulary, self.hidden)}
        for layer in range(self.layers):
            outer |= {f"model.layers.{layer}.{n}": s for n, s in self._block().items()}
        return outer | {"lm_head": (self.vocabulary, self.hidden)}

    def norms(self) -> tuple[str, ...]:
        """Modules whose weight is [hidden]."""
        each = ("input_layernorm", "post_attention_layernorm")
        blocks = [f"model.layers.{layer}.{n}" for layer in range(self.layers) for n in each]
        return (*blocks, "model.norm")

    def _block(self) -> Mapping[str, tuple[int, int]]:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "mlp.gate_proj": (self.mlp, self.hidden),
            "mlp.up_proj": (self.mlp, self.hidden),
            "mlp.down_proj": (self.hidden, self.mlp),
        }

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but the embedding."""
        return sum(map(math.prod, self.matrices().values())) - self.vocabulary * self.hidden

    @property
    def kv_elements(self) -> int:
        """Elements of the KV cache per position."""
        return 2 * self.layers * self.kv_heads * self.head_dim


LLAMA_8B = Shape(
    name="llama-3.1-8b",
    layers=32,
    hidden=4096,
    mlp=14336,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=128256,
)
LLAMA_8B_SHORT = replace(LLAMA_8B, name="llama-3.1-8b, two layers", layers=2)
"""Every product as large as in the whole model, and little enough for float32 beside it."""
TINY = Shape(
    name="tiny",
    layers=2,
    hidden=512,
    mlp=1024,
    heads=4,
    kv_heads=2,
    head_dim=128,
    vocabulary=1088,
    positions=4096,
)
SHAPES: Mapping[str, Shape] = {"llama-8b": LLAMA_8B, "tiny": TINY}
CHECKED: Mapping[str, Shape] = {"llama-8b": LLAMA_8B_SHORT, "tiny": TINY}
"""The shape whose answers are checked before those of another are timed."""
