"""Log-probabilities of one position, as plain data."""

import msgspec


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
