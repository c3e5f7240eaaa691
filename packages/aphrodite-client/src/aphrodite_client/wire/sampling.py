"""Sampling fields of a request.

Generated from the engine's stages by scripts/generate_client.py: change them there.
"""

from collections.abc import Mapping, Sequence
from typing import TypedDict


class SamplingFields(TypedDict, total=False):
    """Fields that shape how tokens are drawn; a field left out is off."""

    logit_bias: Mapping[int, float] | None
    """Adds to the logits of tokens, given as a map from token id to bias; empty is off."""

    repetition_penalty: float | None
    """Divides positive and multiplies negative logits of tokens in prompt or output; 1 is off.
    Must be above 0. Also named rep_pen.
    """

    presence_penalty: float | None
    """Subtracted from the logits of tokens in the output; 0 is off. Must be at least -2 and at
    most 2.
    """

    frequency_penalty: float | None
    """Subtracted from a token's logit for each time it stands in the output; 0 is off. Must be
    at least -2 and at most 2.
    """

    temperature: float | None
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it; 0 is greedy.
    Greedy: the likeliest token that the stages before this one leave is taken without a draw.
    Must be at least 0.
    """

    top_k: int | None
    """Keeps the k likeliest tokens, and those exactly as likely as the last of them; 0 is off.
    Must be at least 0.
    """

    top_p: float | None
    """Keeps the likeliest tokens that together reach probability p (arXiv 1904.09751); 1 is
    off. Tokens exactly as likely as the last of them stay too. Must be above 0 and at most 1.
    """

    min_p: float | None
    """Removes tokens less likely than this share of the likeliest (arXiv 2407.01082); 0 is off.
    Must be at least 0 and at most 1.
    """

    mirostat_mode: int | None
    """Version: 2 removes tokens more surprising than the limit; 1 keeps as many of the
    likeliest as reach it under Zipf's law, whose exponent it estimates; 0 is off. Must be at
    least 0 and at most 2. Also named mirostat.
    """

    mirostat_tau: float | None
    """Target: mean surprise of a token in bits; the limit begins at twice this. Must be at
    least 0 and at most 1000.
    """

    mirostat_eta: float | None
    """How far the limit moves for each bit of error; 0 leaves it where it begins. Must be at
    least 0 and at most 1000.
    """

    adaptive_target: float | None
    """Mean probability of the chosen tokens; 0 and below is off. Must be at least -1 and at
    most 1.
    """

    adaptive_decay: float | None
    """What is left, after one token, of its predecessors' weight in the mean; 0 forgets them.
    Must be at least 0 and at most 0.99.
    """

    sampler_priority: Sequence[str | int] | None
    """Names or numbers of samplers in the order in which they shall act. Those that it does not
    name keep their places in the default order; those that it names share out the places that
    they have there. Empty is the default order. Also named sampler_order.
    """

    temperature_last: bool | None
    """Temperature acts on what the filters leave, just after XTC. Without effect beside
    sampler_priority, which says itself where temperature stands.
    """

    min_tokens: int | None
    """End-of-text and stop tokens are impossible before this many. Must be at least 0."""

    stop_token_ids: Sequence[int] | None
    """Further tokens that end the completion."""

    include_stop_str_in_output: bool | None
    """Keep the stop string that ended the completion."""

    ignore_eos: bool | None
    """Generate on past end-of-text."""

    skip_special_tokens: bool | None
    """Leave control tokens out of the text."""

    spaces_between_special_tokens: bool | None
    """Put a space between neighbouring control tokens, when they are shown."""

    prompt_logprobs: int | None
    """Log-probabilities of each prompt token but the first, and this many likeliest ones. Must
    be at least 0 and at most 20.
    """
