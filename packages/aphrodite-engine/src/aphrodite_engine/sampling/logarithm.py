"""Logarithms of the probabilities that fields name."""

import math

_UNIT = 1e-4
"""Of the cutoffs."""


def log(share: float) -> float:
    """The natural one; that of 0 is -inf, which is below every logit."""
    return math.log(share) if share else -math.inf


def log_of_cutoff(units: float) -> float:
    """That of the probability that an epsilon or eta cutoff names, in units of 0.0001."""
    return log(units) + math.log(_UNIT)
