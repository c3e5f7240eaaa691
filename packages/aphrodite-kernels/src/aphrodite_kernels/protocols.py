"""Call signature of every op of a backend.

Shape letters: T tokens in the step, B requests, R logit rows, H heads, Hkv KV heads, D head size,
N out features, K in features, V vocabulary, F hidden width of the MLP.

Rows may be strided (a slice of a wider matrix) as long as the last dimension is contiguous, so a
stacked projection is split without a copy. Floating tensors of one call share one dtype unless
stated. Unless a docstring says "in place", inputs are left alone and the result is new.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

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
        """q [T, H, D] -> [T, H, D]. Head h reads KV head h * Hkv // H. Accumulates in float32."""
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


class Uniform(Protocol):
    """Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011)."""

    def __call__(self, seeds: Tensor, choices: Tensor, positions: Tensor, purpose: int) -> Tensor:
        """seeds [B] int64, choices [B] int32, positions [B] int32 -> [B] float32 in [0, 1).

        key = (low, high) 32 bits of the seed; counter = (position, choice, purpose, 0); the result
        is the upper 24 bits of the first output word times 2^-24. Equal bit for bit everywhere.
        """
        ...


class Argmax(Protocol):
    """The likeliest token of each row."""

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits [R, V] -> tokens [R] int32: the first of the largest; valid [R] bool.

        The logits are float32 or in the backend's activation dtype.

        Valid: the largest is finite and none is NaN. The token of a row that is not is 0.
        """
        ...


class Draw(Protocol):
    """One token of each row, by inverting the cumulative distribution."""

    def __call__(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """logits [R, V], uniform [R] in [0, 1), float32 -> tokens [R] int32; valid [R] bool.

        The first token up to which softmax(logits) sums to more than `uniform`, sums being good to
        1e-5; never one of probability 0. Row r depends on row r alone, bit for bit. Valid as for
        Argmax.
        """
        ...


class LogSumExp(Protocol):
    """The logarithm of the sum of exponentials of each row."""

    def __call__(self, logits: Tensor) -> Tensor:
        """logits [R, V] -> [R], float32. Row r depends on row r alone, bit for bit.

        A row whose largest number is not finite gives infinity, of either sign, or NaN.
        """
        ...


class Uncertainty(Protocol):
    """How little is known of each row's token."""

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """logits [n, V] float32 -> entropy, least surprise [n, 1] float64; possible [n, 1] int64.

        In nats, good to 1e-5. The least surprise is minus the logarithm of the largest probability;
        possible tokens are those above -inf. Row r depends on row r alone, bit for bit. In a row
        whose largest number is not finite, entropy and surprise say nothing.
        """
        ...


class Deviation(Protocol):
    """The standard deviation of the logits of each row that are above -inf."""

    def __call__(self, logits: Tensor) -> Tensor:
        """logits [n, V] float32 -> [n, 1] float64: the root of their mean squared distance.

        Good to 1e-5 of itself. Row r depends on row r alone, bit for bit. It says nothing of a row
        whose largest number is not finite.
        """
        ...


class Keep(Protocol):
    """Remove the tokens below a threshold of each row."""

    def __call__(self, logits: Tensor, threshold: Tensor) -> None:
        """In place. logits [n, V], threshold [n, 1], float32: logits below it become -inf."""
        ...


class KeepNear(Protocol):
    """Remove the tokens that are too far below the likeliest of their row."""

    def __call__(self, logits: Tensor, gap: Tensor) -> None:
        """In place. logits [n, V], gap [n, 1] <= 0, float32: below the largest + gap become -inf.

        A row whose largest number is not finite may stay as it is.
        """
        ...


class KeepUpTo(Protocol):
    """Remove the tokens above a limit of each row."""

    def __call__(self, logits: Tensor, limit: Tensor) -> None:
        """In place. logits [n, V], limit [n, 1], float32: logits above it become -inf."""
        ...


class LeastFrom(Protocol):
    """The least likely of the tokens that reach a threshold."""

    def __call__(self, logits: Tensor, threshold: Tensor) -> Tensor:
        """logits [n, V], threshold [n, 1] -> [n, 1], float32: its logit; infinity if none does.

        Logits of -inf never count.
        """
        ...


class KeepTopK(Protocol):
    """Remove all but the likeliest tokens of each row."""

    def __call__(self, logits: Tensor, count: Tensor) -> None:
        """In place. logits [n, V] float32, count [n, 1] int64; at most 0, or V and more: all stay.

        Tokens exactly as likely as the last one kept stay, too; the others become -inf.
        """
        ...


class KeepTopP(Protocol):
    """Remove all but the likeliest tokens that together reach a share (arXiv 1904.09751)."""

    def __call__(self, logits: Tensor, share: Tensor) -> None:
        """In place. logits [n, V] float32, share [n, 1] float32 in (0, 1]; 1: all stay.

        Tokens exactly as likely as the last one kept stay, too; the others become -inf. Sums of
        probabilities are good to 1e-5.
        """
        ...


class KeepTailFree(Protocol):
    """Remove the tail of each row, where the curve of sorted probabilities turns flat."""

    def __call__(self, logits: Tensor, share: Tensor) -> None:
        """In place. logits [n, V] float32, share [n, 1] float32 in (0, 1]; 1: all stay.

        The absolute second differences of the sorted probabilities are summed up from the likeliest
        token on; token k stays if those that begin before it reach no more than this share of all.
        All of a row stay whose second differences are 0. Tokens exactly as likely as the last one
        kept stay, too; the others become -inf.
        """
        ...


class KeepTypical(Protocol):
    """Remove all but the tokens nearest to the expected surprise that reach a share."""

    def __call__(self, logits: Tensor, share: Tensor) -> None:
        """In place. logits [n, V] float32, share [n, 1] float32 in [0, 1]; 1: all stay.

        What is expected is the entropy (arXiv 2202.00666). At least one token stays, and so do
        those exactly as near as the last one; the others become -inf.
        """
        ...


class Skew(Protocol):
    """Raise the cumulative probability of the sorted tokens to a power."""

    def __call__(self, logits: Tensor, power: Tensor) -> None:
        """In place. logits [n, V] float32, power [n, 1] float32 above 0; 1: nothing changes.

        With q the probability up to a token, likeliest first and of equals the first, and p its
        own, the new logit is log(q^power - (q - p)^power).
        """
        ...


class FindPaths(Protocol):
    """The rings of symbols through a trellis of 2^16 states that come nearest to given numbers.

    The state of a symbol is the last 16 bits of the ring up to and with its own.
    """

    def __call__(self, targets: Tensor, bits: int, numbers: Tensor) -> Tensor:
        """targets [n, 256], numbers of the states [65536], float32 -> symbols [n, 256] uint8.

        Symbols have 1 to 8 bits. The path has the least sum of squared errors of all that have its
        bits at the seam; those are the best path's of the targets near it.
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
