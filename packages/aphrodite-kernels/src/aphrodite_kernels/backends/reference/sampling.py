"""Choosing tokens, and counter-based random numbers: Philox4x32-10 in int64 arithmetic.

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

import torch
from torch import Tensor

_ROUNDS = 10
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def uniform(seeds: Tensor, choices: Tensor, positions: Tensor, purpose: int) -> Tensor:
    """The upper 24 bits of the first word of each row's block, times 2^-24."""
    position, choice = positions.long() & _WORD, choices.long() & _WORD
    counter = torch.stack(
        (position, choice, torch.full_like(position, purpose), torch.zeros_like(position))
    )
    key = torch.stack((seeds & _WORD, (seeds >> 32) & _WORD))
    return (philox(counter, key)[0] >> 8).float() * 2.0**-24


def argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The first of the largest."""
    valid = logits.amax(-1).isfinite()  # the maximum of NaN and anything is NaN
    return logits.argmax(-1).where(valid, 0).int(), valid


def logsumexp(logits: Tensor) -> Tensor:
    """[R, V] -> [R]."""
    return logits.logsumexp(-1)


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The cumulative distribution in float64."""
    upto = logits.double().softmax(-1).cumsum(-1)  # of what is not valid: NaN
    target = uniform.double()[:, None] * upto[:, -1:]
    return (upto <= target).sum(-1, dtype=torch.int32), upto[:, -1].isfinite()


def keep(logits: Tensor, threshold: Tensor) -> None:
    """Whatever is below the threshold goes."""
    logits.masked_fill_(logits < threshold, -torch.inf)


def keep_near(logits: Tensor, gap: Tensor) -> None:
    """Whatever is further below the largest than the gap goes."""
    keep(logits, logits.amax(-1, keepdim=True) + gap)


def keep_up_to(logits: Tensor, limit: Tensor) -> None:
    """Whatever is above the limit goes."""
    logits.masked_fill_(logits > limit, -torch.inf)


def least_from(logits: Tensor, threshold: Tensor) -> Tensor:
    """[n, V] -> [n, 1]."""
    counts = (logits >= threshold) & (logits > -torch.inf)
    return logits.masked_fill(~counts, torch.inf).amin(-1, keepdim=True)


def keep_top_k(logits: Tensor, count: Tensor) -> None:
    """Whatever is below the count-th largest goes."""
    vocabulary = logits.shape[1]
    last = count.masked_fill(count <= 0, vocabulary).clamp(max=vocabulary) - 1
    keep(logits, logits.sort(-1, descending=True).values.gather(1, last))


def keep_top_p(logits: Tensor, share: Tensor) -> None:
    """Sums of the sorted probabilities in float64."""
    probabilities = logits.double().softmax(-1)
    ordered = probabilities.sort(-1, descending=True).values
    missed = (ordered.cumsum(-1) < share.double()).sum(-1, keepdim=True)
    least = ordered.gather(1, missed.clamp(max=logits.shape[1] - 1))
    logits.masked_fill_((probabilities < least) & (share < 1), -torch.inf)


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Counter [4, B] and key [2, B] -> block [4, B]: unsigned 32-bit words held in int64."""
    (a, b, c, d), (low, high) = counter, key
    for _ in range(_ROUNDS):
        # Signed products wrap modulo 2^64; the mask after the arithmetic shift gives the high word.
        first, second = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            (second >> 32 & _WORD) ^ b ^ low,
            second & _WORD,
            (first >> 32 & _WORD) ^ d ^ high,
            first & _WORD,
        )
        low, high = low + _KEY_STEPS[0] & _WORD, high + _KEY_STEPS[1] & _WORD
    return torch.stack((a, b, c, d))
