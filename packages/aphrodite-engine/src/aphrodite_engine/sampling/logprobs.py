"""Log-probabilities of the model itself, before any stage: of sampled tokens and of prompts.

Those of a beam's next tokens are after its stages, which count in its score: a bias is added to the
logarithm of the model's probability, as transformers does, and a banned token has none.

A prompt is scored a few positions at a time (execution/step_executor.py), so that its logits never
exist as a whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aphrodite_kernels.sampling_protocols import LogSumExp
from torch import Tensor

from aphrodite_engine.sampling.token_logprobs import TokenLogprobs

_FLOOR = -9999.0


@dataclass(frozen=True, slots=True)
class Scores:
    """The same for m positions, on the device."""

    tokens: Tensor
    """[m] int64."""
    logprobs: Tensor
    """[m] float32."""
    ranks: Tensor
    """[m] int64."""
    top_tokens: Tensor
    """[m, K] int64."""
    top_logprobs: Tensor
    """[m, K] float32, descending."""

    def map(self, move: Callable[[Tensor], Tensor]) -> "Scores":
        """The same elsewhere."""
        return Scores(*(move(getattr(self, name)) for name in self.__slots__))

    def read(self, counts: Sequence[int]) -> list[TokenLogprobs]:
        """Fetch from the device; position i with its counts[i] likeliest tokens."""
        columns = (
            self.tokens,
            _finite(self.logprobs),
            self.ranks,
            self.top_tokens,
            _finite(self.top_logprobs),
        )
        lines = zip(counts, *(to_host(column) for column in columns), strict=True)
        return [
            TokenLogprobs(token, own, rank, list(zip(ids[:count], tops[:count], strict=True)))
            for count, token, own, rank, ids, tops in lines
        ]


def score(
    logits: Tensor,
    tokens: Tensor,
    count: int,
    logsumexp: LogSumExp,
    shaped: Tensor | None = None,
) -> Scores:
    """Score tokens [m] int64 under logits [m, V], with the `count` likeliest.

    `shaped`, [m, V] float32: what stages made of the logits, where that is to be scored.
    """
    logits = logits.float()
    total = logsumexp(logits)[:, None]
    logits = logits if shaped is None else shaped
    own = logits.gather(1, tokens[:, None])
    top = logits.topk(min(count, logits.shape[1]))
    return Scores(
        tokens=tokens,
        logprobs=(own - total)[:, 0],
        ranks=(logits > own).sum(-1) + 1,
        top_tokens=top.indices,
        top_logprobs=top.values - total,
    )


def to_host(tensor: Tensor) -> list[Any]:
    """Numbers of a tensor, nested as it is; waits for the device."""
    return tensor.tolist()  # pyright: ignore[reportUnknownVariableType] - torch leaves it open


def _finite(logprobs: Tensor) -> Tensor:
    """Without NaN and -inf, which JSON does not know."""
    return logprobs.nan_to_num(nan=_FLOOR).clamp(min=_FLOOR)
