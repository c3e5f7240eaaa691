"""Log-probabilities of the model itself, before any stage: of sampled tokens and of prompts.

A prompt is scored from hidden states, a slice of the vocabulary at a time, so that its logits never
exist as a whole. Knows nothing of models: a callable gives logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
import torch
from torch import Tensor

_FLOOR = -9999.0
_SLICE = 16384

LogitSlice: TypeAlias = Callable[[Tensor, int, int], Tensor]
"""(rows [m] int64, start, stop) -> logits [m, stop - start] of those rows for those tokens."""


class TokenLogprobs(msgspec.Struct, frozen=True):
    """Log-probabilities at one position, before any stage."""

    token: int
    """The token that stands there."""
    logprob: float
    """Never below -9999."""
    rank: int
    """1: the likeliest."""
    top: list[tuple[int, float]]
    """The likeliest tokens, descending."""


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


def score(logits: Tensor, tokens: Tensor, count: int) -> Scores:
    """Score tokens [m] int64 under logits [m, V], with the `count` likeliest."""
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    own = logits.gather(1, tokens[:, None])
    top = logits.topk(min(count, logits.shape[1]))
    return Scores(
        tokens=tokens,
        logprobs=(own - total)[:, 0],
        ranks=(logits > own).sum(-1) + 1,
        top_tokens=top.indices,
        top_logprobs=top.values - total,
    )


def score_in_slices(
    logits: LogitSlice, tokens: Tensor, count: int, vocabulary: int, width: int = _SLICE
) -> Scores:
    """Score tokens [m] int64, with the `count` likeliest; memory for m x width logits.

    A position's rank needs the logit of its token before the others are counted, so each position
    first computes the one slice that holds its token: 1 / slices more work than a single pass.
    """
    slices = [(at, min(at + width, vocabulary)) for at in range(0, vocabulary, width)]
    everyone = torch.arange(len(tokens), device=tokens.device)
    own = torch.empty(len(tokens), 1, device=tokens.device)
    for start, stop in slices:
        here = everyone[(tokens >= start) & (tokens < stop)]
        if len(here):
            part = logits(here, start, stop).float()
            own[here] = part.gather(1, tokens[here, None] - start)
    total = torch.full_like(own, float("-inf"))
    above = torch.zeros_like(tokens)
    top, top_tokens = own[:, :0], tokens[:, None][:, :0]
    for start, stop in slices:
        part = logits(everyone, start, stop).float()
        total = torch.logaddexp(total, part.logsumexp(-1, keepdim=True))
        ids = torch.arange(start, stop, device=tokens.device)
        # The token's own logit may come out of a smaller product with other bits: leave it out.
        above += ((part > own) & (ids != tokens[:, None])).sum(-1)
        best = part.topk(min(count, stop - start))
        candidates = torch.cat([top, best.values], 1)
        top, order = candidates.topk(min(count, candidates.shape[1]))
        top_tokens = torch.cat([top_tokens, best.indices + start], 1).gather(1, order)
    return Scores(tokens, (own - total)[:, 0], above + 1, top_tokens, top - total)


def to_host(tensor: Tensor) -> list[Any]:
    """Numbers of a tensor, nested as it is; waits for the device."""
    return tensor.tolist()  # pyright: ignore[reportUnknownVariableType] - torch leaves it open


def _finite(logprobs: Tensor) -> Tensor:
    """Without NaN and -inf, which JSON does not know."""
    return logprobs.nan_to_num(nan=_FLOOR).clamp(min=_FLOOR)
