"""Llama (arXiv 2302.13971, 2307.09288, 2407.21783), and the decoders that differ by settings alone.

Pre-norm blocks of grouped-query attention with rotary positions and a gated MLP. SmolLM2 is this
model as it stands; Mistral, Qwen2 and Qwen3 read their own configuration into the same `Config`.
"""

from dataclasses import dataclass, replace

from aphrodite_kernels.protocols import Activation
from torch import Tensor

from aphrodite_engine.keys import Keys
from aphrodite_engine.kv import KVSpec
from aphrodite_engine.layers.attention import Attention, AttentionShape
from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.layers.decoder import Decoder
from aphrodite_engine.layers.mlp import GatedMLP, read_activation
from aphrodite_engine.layers.rope import Rope, read_rope
from aphrodite_engine.layers.window import MOST_LAYERS
from aphrodite_engine.model import Architecture, GgufDialect
from aphrodite_engine.model_input import ModelInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The facts of a model of this kind."""

    vocab_size: int
    hidden_size: int
    mlp_size: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope: Rope
    max_position: int
    tied: bool
    windows: tuple[int | None, ...]
    """Per layer."""
    activation: Activation = "silu"
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    @property
    def kv_specs(self) -> tuple[KVSpec, ...]:
        return tuple(KVSpec(self.kv_heads, self.head_dim, window) for window in self.windows)

    def attention(self, layer: int) -> AttentionShape:
        """Of one layer."""
        return AttentionShape(
            hidden_size=self.hidden_size,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            scale=self.head_dim**-0.5,
            window=self.windows[layer],
            qkv_bias=self.qkv_bias,
            output_bias=self.output_bias,
        )

    def build(self, weights: Builder, positions: int) -> Decoder:
        """The model, for contexts of up to `positions` tokens."""
        model, shape = weights.at("model"), (self.vocab_size, self.hidden_size)
        rope = self.rope.table(positions, weights.backend.device)
        embedding = model.embedding("embed_tokens", shape)
        return Decoder(
            embedding=embedding,
            blocks=[
                Block(self, model.at(f"layers.{layer}"), layer, rope)
                for layer in range(len(self.windows))
            ],
            norm=model.norm("norm", self.hidden_size, self.eps),
            head=weights.head("lm_head", shape, embedding if self.tied else None),
        )


class Block:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: Config, weights: Builder, layer: int, rope: Tensor) -> None:
        attention, width, eps = weights.at("self_attn"), config.hidden_size, config.eps
        qk_norms = None
        if config.qk_norm:
            head_dim = config.head_dim
            qk_norms = (
                attention.norm("q_norm", head_dim, eps),
                attention.norm("k_norm", head_dim, eps),
            )
        self._attention = Attention(attention, layer, config.attention(layer), rope, qk_norms)
        norm = weights.norm("input_layernorm", width, eps)
        self._attention_norm = norm.into(self._attention.inputs)
        self._mlp = GatedMLP(
            weights.at("mlp"), width, config.mlp_size, config.activation, bias=config.mlp_bias
        )
        norm = weights.norm("post_attention_layernorm", width, eps)
        self._mlp_norm = norm.into(self._mlp.inputs)

    def __call__(
        self,
        update: Tensor,
        residual: Tensor | None,
        input: ModelInput,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As layers.decoder.Block."""
        hidden, residual = self._attention_norm.add(update, residual)
        update, residual = self._attention(hidden, residual, input, wanted)
        hidden, residual = self._mlp_norm.add(update, residual)
        return self._mlp(hidden), residual


def read_decoder(keys: Keys) -> Config:
    """The keys that decoders of this kind share; full attention, no biases."""
    hidden, heads = keys.positive("hidden_size"), keys.positive("num_attention_heads")
    head_dim = keys.positive("head_dim", hidden // heads)
    kv_heads = keys.positive("num_key_value_heads", heads)
    if heads % kv_heads:
        raise keys.wrong("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    return Config(
        vocab_size=keys.positive("vocab_size"),
        hidden_size=hidden,
        mlp_size=keys.positive("intermediate_size"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        eps=keys.number("rms_norm_eps", 1e-6),
        rope=read_rope(keys, head_dim),
        max_position=keys.positive("max_position_embeddings"),
        tied=keys.flag("tie_word_embeddings", default=False),
        windows=(None,) * keys.positive("num_hidden_layers", most=MOST_LAYERS),
        activation=read_activation(keys, "hidden_act", "silu"),
    )


def read_llama(keys: Keys) -> Config:
    """A `llama` configuration."""
    bias = keys.flag("attention_bias", default=False)
    mlp_bias = keys.flag("mlp_bias", default=False)
    return replace(read_decoder(keys), qkv_bias=bias, output_bias=bias, mlp_bias=mlp_bias)


def _gguf_keys(metadata: Keys) -> dict[str, object]:
    """A Mistral calls itself `llama` there."""
    return {"model_type": "mistral"} if "attention.sliding_window" in metadata else {}


ARCHITECTURE = Architecture(
    read=read_llama,
    gguf=GgufDialect(
        architecture="llama",
        permuted=("self_attn.q_proj", "self_attn.k_proj"),
        keys=_gguf_keys,
    ),
)
