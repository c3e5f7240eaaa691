"""Gemma 3, the text decoder (arXiv 2503.19786).

Norms before and after each half of a block, their weights stored less one; norms on the heads of q
and k; embeddings scaled by sqrt(hidden); five sliding layers to each full one, with a rotary base
of their own.
"""

from dataclasses import dataclass

from aphrodite_kernels.protocols import Activation
from aphrodite_quant import MetadataValue
from torch import Tensor

from aphrodite_engine.keys import Keys
from aphrodite_engine.kv import KVSpec
from aphrodite_engine.layers.attention import Attention, AttentionShape
from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.layers.decoder import Decoder
from aphrodite_engine.layers.mlp import GatedMLP, read_activation
from aphrodite_engine.layers.rope import Rope, read_rope
from aphrodite_engine.layers.window import MOST_LAYERS, read_windows
from aphrodite_engine.model import Architecture, GgufDialect
from aphrodite_engine.model_input import ModelInput

_LAYERS_OF_27B = 62
"""The one size whose attention is not scaled by the size of its heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The facts of a Gemma 3 model."""

    vocab_size: int
    hidden_size: int
    mlp_size: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    query_scalar: float
    """Queries are divided by its root."""
    rope: Rope
    """Of full layers."""
    local_rope: Rope
    """Of sliding layers."""
    max_position: int
    tied: bool
    windows: tuple[int | None, ...]
    """Per layer."""
    activation: Activation
    bias: bool
    softcap: float | None

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
            scale=self.query_scalar**-0.5,
            window=self.windows[layer],
            qkv_bias=self.bias,
            output_bias=self.bias,
        )

    def build(self, weights: Builder, positions: int) -> Decoder:
        """The model, for contexts of up to `positions` tokens."""
        model, device = weights.at("model"), weights.backend.device
        shape = (self.vocab_size, self.hidden_size)
        rope, local_rope = (each.table(positions, device) for each in (self.rope, self.local_rope))
        embedding = model.embedding("embed_tokens", shape, self.hidden_size**0.5)
        return Decoder(
            embedding=embedding,
            blocks=[
                Block(self, model.at(f"layers.{layer}"), layer, local_rope if window else rope)
                for layer, window in enumerate(self.windows)
            ],
            norm=model.norm("norm", self.hidden_size, self.eps, offset=1.0),
            head=weights.head("lm_head", shape, embedding if self.tied else None),
            softcap=self.softcap,
        )


class Block:
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x)))."""

    def __init__(self, config: Config, weights: Builder, layer: int, rope: Tensor) -> None:
        attention, width, eps = weights.at("self_attn"), config.hidden_size, config.eps
        qk_norms = (
            attention.norm("q_norm", config.head_dim, eps, offset=1.0),
            attention.norm("k_norm", config.head_dim, eps, offset=1.0),
        )
        self._attention = Attention(attention, layer, config.attention(layer), rope, qk_norms)
        norm = weights.norm("input_layernorm", width, eps, offset=1.0)
        self._before_attention = norm.into(self._attention.inputs)
        self._after_attention = weights.norm("post_attention_layernorm", width, eps, offset=1.0)
        self._mlp = GatedMLP(weights.at("mlp"), width, config.mlp_size, config.activation)
        norm = weights.norm("pre_feedforward_layernorm", width, eps, offset=1.0)
        self._before_mlp = norm.into(self._mlp.inputs)
        self._after_mlp = weights.norm("post_feedforward_layernorm", width, eps, offset=1.0)

    def __call__(
        self,
        update: Tensor,
        residual: Tensor | None,
        input: ModelInput,
        wanted: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As layers.decoder.Block."""
        hidden, residual = self._before_attention.add(update, residual)
        update, residual = self._attention(hidden, residual, input, wanted)
        hidden, residual = self._before_mlp.add(self._after_attention(update), residual)
        return self._after_mlp(self._mlp(hidden)), residual


def read_gemma3(keys: Keys) -> Config:
    """A `gemma3_text` configuration."""
    if keys.flag("use_bidirectional_attention", default=False):
        raise keys.wrong("use_bidirectional_attention", "false: only causal models are supported")
    if "attn_logit_softcapping" in keys:
        raise keys.wrong("attn_logit_softcapping", "null: Gemma 3 norms q and k instead")
    pattern = keys.positive("sliding_window_pattern", keys.positive("_sliding_window_pattern", 6))
    layers, head_dim = (
        keys.positive("num_hidden_layers", most=MOST_LAYERS),
        keys.positive("head_dim", 256),
    )
    return Config(
        vocab_size=keys.positive("vocab_size"),
        hidden_size=keys.positive("hidden_size"),
        mlp_size=keys.positive("intermediate_size"),
        heads=keys.positive("num_attention_heads"),
        kv_heads=keys.positive("num_key_value_heads"),
        head_dim=head_dim,
        eps=keys.number("rms_norm_eps", 1e-6),
        query_scalar=keys.number("query_pre_attn_scalar", 256),
        rope=_read_rope(keys, head_dim, local=False),
        local_rope=_read_rope(keys, head_dim, local=True),
        max_position=keys.positive("max_position_embeddings"),
        tied=keys.flag("tie_word_embeddings", default=True),
        windows=read_windows(keys, layers, lambda layer: (layer + 1) % pattern != 0),
        activation=read_activation(keys, "hidden_activation", "gelu_pytorch_tanh"),
        bias=keys.flag("attention_bias", default=False),
        softcap=keys.number("final_logit_softcapping")
        if "final_logit_softcapping" in keys
        else None,
    )


def _read_rope(keys: Keys, head_dim: int, *, local: bool) -> Rope:
    if "rope_parameters" in keys:
        kind = "sliding_attention" if local else "full_attention"
        return read_rope(keys, head_dim, layer_type=kind)
    if local:
        return Rope(head_dim, keys.number("rope_local_base_freq", 10000.0))
    return read_rope(keys, head_dim, default_theta=1_000_000.0)


def _gguf_keys(metadata: Keys) -> dict[str, object]:
    heads, hidden = metadata.positive("attention.head_count"), metadata.positive("embedding_length")
    of_27b = metadata.positive("block_count") == _LAYERS_OF_27B
    return {
        "query_pre_attn_scalar": (
            hidden // heads if of_27b else metadata.positive("attention.key_length")
        ),
        "rope_local_base_freq": metadata.number("rope.freq_base_swa", 10000.0),
    }


def _gguf_description(config: Config) -> dict[str, MetadataValue]:
    found: dict[str, MetadataValue] = {"rope.freq_base_swa": config.local_rope.theta}
    if config.softcap is not None:
        found["final_logit_softcapping"] = config.softcap
    return found


ARCHITECTURE = Architecture(
    read=read_gemma3,
    gguf=GgufDialect(
        architecture="gemma3",
        norm_offset=1.0,
        names={
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        },
        keys=_gguf_keys,
        describe=_gguf_description,
    ),
)
