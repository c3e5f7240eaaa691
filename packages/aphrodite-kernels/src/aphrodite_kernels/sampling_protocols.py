"""Signatures of the ops that make tokens of logits; see protocols.py."""

from typing import Protocol

from torch import Tensor


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


class Divide(Protocol):
    """Divide each row by a number."""

    def __call__(self, logits: Tensor, divisor: Tensor) -> None:
        """In place. logits [n, V], divisor [n, 1] above 0, float32."""
        ...


class Bend(Protocol):
    """Bend each row along a curve through its likeliest token."""

    def __call__(self, logits: Tensor, square: Tensor, cube: Tensor) -> None:
        """In place. logits [n, V], square, cube [n, 1], float32; both 0: nothing changes.

        A token at distance d <= 0 from the largest goes to d^2 (cube * d - square) from it; d is
        -1e6 at least, and -inf stays. A row whose largest number is not finite stays as it is.
        """
        ...


class Prefer(Protocol):
    """Make tokens likelier whose probability is near one that is aimed at."""

    def __call__(self, logits: Tensor, aim: Tensor) -> Tensor:
        """In place. logits [n, V], aim [n, 1], float32; below 0: nothing changes.

        A token of probability p gets the logit 5 - 10 d^2 / (1 + d), where d = |p - aim| / 0.3;
        -inf stays. A row whose largest number is not finite stays as it is.

        Returns:
            [n, V] float32: p, where the row is finite.
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
