"""Call signature of every op of a backend.

Shape letters: T tokens in the step, B requests, R logit rows, H heads, Hkv KV heads, D head size,
N out features, K in features, V vocabulary, F hidden width of the MLP.

Rows may be strided (a slice of a wider matrix) as long as the last dimension is contiguous, so a
stacked projection is split without a copy. Floating tensors of one call share one dtype unless
stated. Unless a docstring says "in place", inputs are left alone and the result is new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.rounded import Rounded, Rows

Activation = Literal["silu", "gelu_tanh"]


class MatMul(Protocol):
    """y = x Wᵀ (+ bias)."""

    def __call__(self, x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        """x [T, K], bias [N] float32 -> [T, N] of x's dtype. Row t depends on x[t] alone."""
        ...


class RoundedMatMul(Protocol):
    """The same product of what one of `Inputs` has rounded."""

    def __call__(self, x: Rounded, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        """x [T, K], bias [N] float32 -> [T, N] of the dtype that x was rounded from."""
        ...


class Embed(Protocol):
    """Look up rows of an embedding."""

    def __call__(self, tokens: Tensor, weight: PackedWeight, scale: float) -> Tensor:
        """tokens [T] int32 -> scale * W[tokens] [T, K] in the backend's activation dtype."""
        ...


class RMSNorm(Protocol):
    """x / sqrt(mean(x²) + eps) * weight over the last dimension (arXiv 1910.07467)."""

    def __call__(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x [T, K] or [T, H, D], weight float32 of the last dimension. Sums in float32."""
        ...


class AddRMSNorm(Protocol):
    """Residual addition and the norm that follows it, fused."""

    def __call__(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """x, residual [T, K] -> (norm(x + residual), x + residual)."""
        ...


class RotateAndStore(Protocol):
    """Rotary position embedding (arXiv 2104.09864), and this step's keys and values to the cache.

    On halves: pairs are (i, i + rotary / 2).
    """

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Tensor,
        table: Tensor,
        cache: KVCache,
        slots: Tensor,
    ) -> None:
        """Rotates q in place; writes rotated k, and v, to their slots of `cache`.

        What k holds afterwards is not defined. For a cache that mixes keys (`mixed_size`) both are
        mixed after they are rotated.

        q [T, H, D]; k, v [T, Hkv, D]; positions [T] int32; slots [T] int64. table [max_position, 2,
        rotary / 2] float32: cosines, then sines, the attention factor included. Dimensions from
        `rotary` on pass through.
        """
        ...


class Attention(Protocol):
    """Causal attention of this step's queries over the paged cache, this step's keys included."""

    def __call__(
        self, q: Tensor, cache: KVCache, meta: AttentionMeta, spec: AttentionSpec
    ) -> Tensor:
        """q [T, H, D] -> [T, H, D]. Head h reads KV head h * Hkv // H. Accumulates in float32.

        Keys or values that are not finite spoil the results of the queries that may look at them,
        and no others.
        """
        ...


class Gated(Protocol):
    """activation(gate) * up."""

    def __call__(self, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        """gate, up [T, F] -> [T, F]."""
        ...


class AddRMSNormInto(Protocol):
    """AddRMSNorm whose norm goes into one product."""

    def __call__(
        self, x: Tensor, residual: Tensor, weight: Tensor, eps: float
    ) -> tuple[Rows, Tensor]:
        """x, residual [T, K] -> (norm(x + residual), x + residual).

        The norm as it is, or rounded as the product would round it: bit for bit, the product is
        the same.
        """
        ...


class GatedInto(Protocol):
    """Gated whose result goes into one product."""

    def __call__(self, gate: Tensor, up: Tensor, activation: Activation) -> Rows:
        """gate, up [T, F] -> [T, F], as it is or as the product would round it."""
        ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """The ops that make the inputs of one product."""

    add_rms_norm: AddRMSNormInto
    gated: GatedInto


class InputsFor(Protocol):
    """Choose those ops, once."""

    def __call__(self, weight: PackedWeight) -> Inputs:
        """weight: prepared, of the product."""
        ...


class Takes(Protocol):
    """Which weights of a layout a backend's product multiplies."""

    def __call__(self, weight: PackedWeight) -> bool:
        """weight: prepared."""
        ...


class Select(Protocol):
    """Gather rows."""

    def __call__(self, x: Tensor, index: Tensor) -> Tensor:
        """x [T, K] of activations or int32, index [R] int64 -> [R, K]."""
        ...


class Located(NamedTuple):
    """What a step reads, in G KV groups."""

    tokens: Tensor
    """[T] int32."""
    slots: Tensor
    """[G, T] int64: where each token's keys and values go."""
    tables: Tensor
    """[G, B, max_blocks] int32: the blocks of each request."""


class Locate(Protocol):
    """Look up what follows from rows and positions."""

    def __call__(
        self,
        rows: Tensor,
        owners: Tensor,
        positions: Tensor,
        tokens: Tensor,
        tables: Tensor,
        block_size: int,
    ) -> Located:
        """Of rows [B] int32 of requests, and of tokens at `positions` [T] int32 of the rows
        `owners` [T] int32, in all rows' tokens [rows, positions] int32 and tables [G, rows,
        max_blocks] int32.
        """
        ...


class FindPaths(Protocol):
    """The rings of symbols through a trellis of 2^16 states that come nearest to given numbers.

    The state of a symbol is the last 16 bits of the ring up to and with its own.
    """

    def __call__(self, targets: Tensor, bits: float, numbers: Tensor) -> Tensor:
        """targets [n, 256], numbers of the states [65536], float32 -> symbols [n, 256] uint8.

        Symbols have 1 to 8 bits; of 1.5, 2.5 and 3.5 the first has half a bit less, the second half
        a bit more, and so on. The path has the least sum of squared errors of all with its bits
        at the seam; those are the best path's of the targets near it.
        """
        ...


class Repack(Protocol):
    """Re-tile a canonical weight into a backend's own layout."""

    def __call__(self, weight: PackedWeight) -> PackedWeight: ...


class Program(Protocol):
    """A captured sequence of op calls over fixed buffers."""

    def replay(self, tokens: int, requests: int, outputs: int) -> None:
        """Run again with the first `tokens`, `requests` and `outputs` rows of the buffers.

        The buffers are those that the captured function read and returned; the caller fills them
        before and reads them after. Rows beyond the counts hold stale values. A rigid program
        (`Backend.elastic` is false) runs over the counts it was captured with, and no others.
        """
        ...


class Capture(Protocol):
    """Record a function for replay."""

    def __call__(
        self, function: Callable[[], Tensor], tokens: int, requests: int, outputs: int
    ) -> tuple[Program, Tensor]:
        """Record `function` on full buffers; also its result, a buffer that replays fill.

        Its ops may be written down without being run.

        tokens, requests and outputs are the buffers' row counts. An elastic recorder takes three
        different numbers: by them it knows along which an op's rows run.
        """
        ...


MatMuls = Mapping[type[PackedWeight], MatMul]
Embeds = Mapping[type[PackedWeight], Embed]
Repacks = Mapping[type[PackedWeight], Repack]
