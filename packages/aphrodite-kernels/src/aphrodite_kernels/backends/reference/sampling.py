"""Choosing tokens, and counter-based random numbers: Philox4x32-10 in int64 arithmetic.

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
"""

import torch
from torch import Tensor

_ROUNDS = 10
_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_ALMOST_IMPOSSIBLE = -1e9
_FARTHEST = -1e6
_AIM_WIDTH, _AIM_PEAK, _AIM_STEEPNESS = 0.3, 5.0, 10.0
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


def uncertainty(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """In float64."""
    logs = logits.double().log_softmax(-1)
    entropy = -(logs.exp() * logs.clamp(min=_ALMOST_IMPOSSIBLE)).sum(-1, keepdim=True)
    return entropy, -logs.amax(-1, keepdim=True), (logits > -torch.inf).sum(-1, keepdim=True)


def deviation(logits: Tensor) -> Tensor:
    """In float64."""
    possible = logits > -torch.inf
    count = possible.sum(-1, keepdim=True)
    below = (logits.double() - logits.amax(-1, keepdim=True)).masked_fill(~possible, 0)
    off = (below - below.sum(-1, keepdim=True) / count).masked_fill(~possible, 0)
    return (off.square().sum(-1, keepdim=True) / count).sqrt()


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The cumulative distribution in float64."""
    upto = logits.double().softmax(-1).cumsum(-1)  # of what is not valid: NaN
    target = uniform.double()[:, None] * upto[:, -1:]
    return (upto <= target).sum(-1, dtype=torch.int32), upto[:, -1].isfinite()


def divide(logits: Tensor, divisor: Tensor) -> None:
    """By torch."""
    logits.div_(divisor)


def bend(logits: Tensor, square: Tensor, cube: Tensor) -> None:
    """A parabola, or a cubic curve."""
    best = logits.amax(-1, keepdim=True)
    distance = (logits - best).clamp_(min=_FARTHEST)
    bent = (cube * distance).sub_(square).mul_(distance.square_()).add_(best)
    stays = (logits == -torch.inf) | ~best.isfinite() | ((square == 0) & (cube == 0))
    logits.copy_(logits.where(stays, bent))


def prefer(logits: Tensor, aim: Tensor) -> Tensor:
    """Weights that fall as a parabola near the aim and as a line far from it."""
    total = logsumexp(logits)[:, None]
    chances = (logits - total).exp_()
    distance = (chances - aim).abs_().div_(_AIM_WIDTH)
    weight = distance.square().div_(distance.add_(1)).mul_(-_AIM_STEEPNESS).add_(_AIM_PEAK)
    stays = (logits == -torch.inf) | ~total.isfinite() | (aim < 0)
    logits.copy_(logits.where(stays, weight))
    return chances


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


def keep_tail_free(logits: Tensor, share: Tensor) -> None:
    """Second differences of the sorted probabilities in float64."""
    if logits.shape[1] < 3:
        return
    ordered = logits.sort(-1, descending=True).values
    upto = ordered.double().softmax(-1).diff(n=2).abs().cumsum(-1)
    whole = upto[:, -1:]
    last = (upto <= share * whole).sum(-1, keepdim=True)
    straight = (whole <= 0) | (share >= 1)
    keep(logits, ordered.gather(1, last).masked_fill(straight, -torch.inf))


def keep_typical(logits: Tensor, share: Tensor) -> None:
    """Distances and sums in float64."""
    logs = logits.double().log_softmax(-1)
    distance = (logs + uncertainty(logits)[0]).abs()
    nearest, places = distance.sort(-1)
    upto = logs.exp().gather(1, places).cumsum(-1)
    last = (upto < share).sum(-1, keepdim=True).clamp(max=logits.shape[1] - 1)
    farthest = nearest.gather(1, last).masked_fill(share >= 1, torch.inf)
    logits.masked_fill_(distance > farthest, -torch.inf)


def skew(logits: Tensor, power: Tensor) -> None:
    """In float64, and in logarithms, so that nothing underflows."""
    power = power.double()
    ordered, places = logits.sort(dim=-1, descending=True, stable=True)
    chances = ordered.double().softmax(-1)
    upto = chances.cumsum(-1)
    beyond = upto[:, -1:] - upto
    log_upto = upto.log().where(upto < 0.5, (-beyond).log1p())
    # q^e - (q - p)^e = q^e * (1 - (1 - p / q)^e)
    gain = -(power * (-(chances / upto).clamp(max=1)).log1p()).expm1()
    skewed = (power * log_upto + gain.log()).float()
    logits.scatter_(1, places, ordered.where(power == 1, skewed))


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
