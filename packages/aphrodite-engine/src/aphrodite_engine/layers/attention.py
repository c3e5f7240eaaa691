"""Self-attention of a decoder: project, rotate, store, attend, project back."""

from dataclasses import dataclass

from aphrodite_kernels.attention import AttentionSpec
from aphrodite_kernels.rounded import Rows
from torch import Tensor

from aphrodite_engine.layers.builder import Builder
from aphrodite_engine.layers.norm import Norm
from aphrodite_engine.model_input import ModelInput


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """What distinguishes one decoder's attention from another's."""

    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    """Factor on q·k."""
    window: int | None = None
    softcap: float | None = None
    qkv_bias: bool = False
    output_bias: bool = False

    @property
    def spec(self) -> AttentionSpec:
        return AttentionSpec(scale=self.scale, window=self.window, softcap=self.softcap)


class Attention:
    """Grouped-query attention over a paged cache."""

    def __init__(
        self,
        weights: Builder,
        layer: int,
        shape: AttentionShape,
        rope: Tensor,
        qk_norms: tuple[Norm, Norm] | None = None,
    ) -> None:
        """`rope` is a table of layers/rope.py; `qk_norms` act on each head of q and of k."""
        self._layer = layer
        self._shape = shape
        self._spec = shape.spec
        self._rope = rope
        self._qk_norms = qk_norms
        self._backend = weights.backend
        q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        widths = {"q_proj": q_width, "k_proj": kv_width, "v_proj": kv_width}
        self._qkv = weights.parallel(widths, shape.hidden_size, bias=shape.qkv_bias)
        output_shape = (shape.hidden_size, q_width)
        self._output = weights.linear("o_proj", output_shape, bias=shape.output_bias)
        self.inputs = self._qkv.inputs
        """The ops that make x."""

    def __call__(
        self, x: Rows, residual: Tensor, input: ModelInput, wanted: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x and residual [T, K] -> what is to be added, and to what: [T, K], or [R, K].

        wanted: tokens [R] that go on from here; None: all.
        """
        q, k, v = self._heads(x)
        cache, meta = input.caches[self._layer], input.attention[self._layer]
        self._backend.rotate_and_store(q, k, v, input.positions, self._rope, cache, meta.slots)
        attended = self._backend.attention(q, cache, meta, self._spec).flatten(1)
        if wanted is not None:
            attended = self._backend.select(attended, wanted)
            residual = self._backend.select(residual, wanted)
        return self._output(attended), residual

    def _heads(self, x: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """[T, K] -> q [T, H, D], k and v [T, Hkv, D]."""
        shape = self._shape
        q, k, v = self._qkv(x)
        q = q.view(-1, shape.heads, shape.head_dim)
        k = k.view(-1, shape.kv_heads, shape.head_dim)
        v = v.view(-1, shape.kv_heads, shape.head_dim)
        if self._qk_norms is not None:
            q_norm, k_norm = self._qk_norms
            q, k = q_norm(q), k_norm(k)
        return q, k, v
