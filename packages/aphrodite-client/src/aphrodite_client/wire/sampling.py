"""Sampling fields of a request.

Generated from the engine's stages by scripts/generate_client.py: change them there.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class SamplingFields(TypedDict, total=False):
    """Fields that shape how tokens are drawn; a field left out is off."""

    allowed_token_ids: Sequence[int] | None
    """The only tokens that the output may hold, as ids; empty is off. End-of-text is none of
    them unless it is listed. Without effect where all of them are already impossible.
    """

    custom_token_bans: Sequence[int] | None
    """Tokens that never occur in the output, as ids; empty is off. A list, or one in a string,
    such as 3,7. Without effect where no token would be left.
    """

    ban_eos_token: bool | None
    """End-of-text never occurs in the output. Also named use_default_badwordsids."""

    token_ban_ranges: Sequence[tuple[Sequence[int], int, int]] | None
    """Bans tokens for a part of the output; empty is off. A list of [token ids, start, length]:
    none of the tokens may be one of the `length` tokens of the output that begin with token
    number `start`, counted from 0. Without effect where no token would be left.
    """

    bad_words: Sequence[str] | None
    """Words that the output may not hold; empty is off. Each is taken as the tokens that the
    tokenizer makes of it, with and without a space before it; the last of them is banned where
    the output ends in the others. The same word made of other tokens is not found. Without
    effect where no token would be left.
    """

    banned_strings: Sequence[str] | None
    """Texts that the output may not hold; empty ones are left out. When one is complete, the
    output is taken back to before the token in which it began, that token is banned at that
    place, and generation goes on from there. Text that may become a banned one is held back.
    Also named banned_phrases, banned_tokens.
    """

    banned_strings_case_sensitive: bool | None
    """Upper and lower case are different letters."""

    logit_bias: Mapping[int, float] | None
    """Adds to the logits of tokens, given as a map from token id to bias; empty is off."""

    dry_multiplier: float | None
    """How strong the penalty is; 0 is off. Must be at least 0."""

    dry_base: float | None
    """By how much the penalty grows with each further token of the repetition. Must be at least
    1.
    """

    dry_allowed_length: int | None
    """Tokens of the shortest repetition that is penalised. Must be at least 0."""

    dry_sequence_breakers: Sequence[str] | None
    """Texts that no repetition reaches across, and that are never penalised if they are a token
    or part of one. A list, or one in a string: as JSON, with or without brackets, or bare
    between commas, with JSON's escapes. An empty one is none.
    """

    dry_range: int | None
    """Only this many last tokens of prompt and output are looked at; 0 is all. Must be at least
    0. Also named dry_penalty_last_n.
    """

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

    rep_pen_range: int | None
    """Only this many last tokens of prompt and output count for the three penalties; 0 is all.
    Must be at least 0. Also named repetition_penalty_range, penalty_range.
    """

    rep_pen_slope: float | None
    """How much of the repetition penalty is left for tokens that stand in the older half of the
    range alone: they get 1 + slope · (penalty - 1). 1, the same for all, is off. Must be above
    0 and at most 1.
    """

    repetition_decay: int | None
    """Over this many tokens before the range the repetition penalty fades to nothing, in equal
    steps, instead of ending at once; 0 is off. Must be at least 0.
    """

    no_repeat_ngram_size: int | None
    """Bans tokens that would repeat a sequence of this many (arXiv 1705.04304); 0 is off.
    Prompt and output count. 1 bans every token that has occurred. Without effect where no token
    would be left. Must be at least 0.
    """

    temperature: float | None
    """Divides the logits: below 1 sharpens the distribution, above 1 flattens it; 0 is greedy.
    Greedy: the likeliest token that the stages before this one leave is taken without a draw.
    Must be at least 0.
    """

    dynatemp_min: float | None
    """Temperature, instead of the fixed one, where the model is sure. Dynamic temperature is
    off if both minimum and maximum are 0. A fixed temperature of 0 is greedy all the same. Must
    be at least 0. Also named dynatemp_low.
    """

    dynatemp_max: float | None
    """Temperature where every possible token is as likely as any other. Must be at least 0.
    Also named dynatemp_high.
    """

    dynatemp_range: float | None
    """Makes the fixed temperature the middle of a dynamic one that goes so far to either side.
    Used if neither minimum nor maximum is given; the lower end is at least 0; 0 is off. Must be
    at least 0.
    """

    dynatemp_exponent: float | None
    """Of the uncertainty, 0 to 1: above 1 a dynamic temperature stays low for longer. Must be
    above 0.
    """

    dynamic_temperature: bool | None
    """False switches a dynamic temperature off, whatever its range."""

    nsigma: float | None
    """Removes tokens whose logits lie more than n standard deviations below the best; 0 is off.
    The standard deviation is that of the logits that are possible at all. Tells informative
    tokens from noise in a way that temperature does not change. Try 1 to 2 (arXiv 2411.07641).
    Must be at least 0. Also named top_n_sigma.
    """

    top_k: int | None
    """Keeps the k likeliest tokens, and those exactly as likely as the last of them; 0 is off.
    Must be at least 0.
    """

    top_p: float | None
    """Keeps the likeliest tokens that together reach probability p (arXiv 1904.09751); 1 is
    off. Tokens exactly as likely as the last of them stay too. Must be above 0 and at most 1.
    """

    top_a: float | None
    """Removes tokens less likely than a times the square of the largest probability; 0 is off.
    Strict where the model is sure, lenient where it is not. Try 0.1 to 0.5. By BlinkDL
    (github.com/BlinkDL/RWKV-LM). Must be at least 0.
    """

    min_p: float | None
    """Removes tokens less likely than this share of the likeliest (arXiv 2407.01082); 0 is off.
    Must be at least 0 and at most 1.
    """

    tfs: float | None
    """Removes the tail that begins where the curve of sorted probabilities turns flat; 1 is
    off. The curvature of that curve, summed up from the likeliest token on, may reach this
    share of the whole; what comes after goes. Try 0.9 to 0.99. Tokens exactly as likely as the
    last that stays stay too. By Trenton Bricken (trentbrick.github.io/Tail-Free-Sampling). Must
    be above 0 and at most 1.
    """

    eta_cutoff: float | None
    """Removes tokens below a probability that falls with entropy, in units of 0.0001; 0 is off.
    With e the parameter's probability and H the entropy in nats, tokens go that are less likely
    than both e and sqrt(e) * exp(-H): where the model is unsure, less is cut off than by an
    epsilon cutoff. Try 3 to 20 (arXiv 2210.15191). Must be at least 0.
    """

    epsilon_cutoff: float | None
    """Removes tokens below a fixed probability, given in units of 0.0001; 0 is off. Cuts off
    the tail that the model smooths over what it never saw. Try 3 to 9 (arXiv 2210.15191). Must
    be at least 0. Also named eps_cutoff.
    """

    typical_p: float | None
    """Keeps the tokens nearest to the expected surprise that reach this probability; 1 is off.
    Surprise is the negative logarithm of a token's probability, and what is expected is its
    mean, the entropy. Dull tokens, even the likeliest, go as well as wild ones. Try 0.2 to
    0.95. Tokens exactly as typical as the last that stays stay too (arXiv 2202.00666). Must be
    at least 0 and at most 1. Also named typical.
    """

    smoothing_factor: float | None
    """Strength of quadratic smoothing of the logits, 0.2 to 1 for a start; 0 is off. Must be at
    least 0.
    """

    smoothing_curve: float | None
    """Shape of quadratic smoothing: 1 is a parabola, 3 a cubic curve, which cuts off sooner.
    Must be at least 1.
    """

    xtc_probability: float | None
    """Share of tokens for which XTC removes the likeliest choices; 0 is off, 0.5 a good start.
    Must be at least 0 and at most 1.
    """

    xtc_threshold: float | None
    """Probability from which on XTC counts a token among the likeliest; above 0.5 is off. Must
    be at least 0 and at most 1.
    """

    xtc_removes_ends: bool | None
    """XTC may remove end-of-text and line breaks, too: texts grow longer and may never end.
    Otherwise it does nothing where one of these is among what it would remove.
    """

    skew: float | None
    """Shifts probability along the sorted tokens, above 0 to unlikelier, below to likelier
    ones. The cumulative probability q of the tokens, likeliest first, becomes q to the power
    exp(skew), so no token is removed. Try 0.1 to 1; 0 is off. Must be at least -20 and at most
    20.
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
    they have there. Empty is the default order. As sampler_order its numbers are Kobold's: 0
    top_k, 1 top_a, 2 top_p and min_p, 3 tfs, 4 typical_p, 5 temperature and quadratic, 6
    penalties. Also named sampler_order.
    """

    temperature_last: bool | None
    """Temperature acts on what the filters leave, just after XTC. Without effect beside
    sampler_priority, which says itself where temperature stands.
    """

    best_of: int | None
    """Completions to generate, of which the n with the highest log-probability per token are
    kept, best first; the width of a beam search. None: n. Must be at least 1 and at most 1024.
    """

    use_beam_search: bool | None
    """Search for the likeliest completions instead of drawing them. Of the samplers those act
    that ban tokens or bias them; log-probabilities are those after them.
    """

    length_penalty: float | None
    """A beam's log-probability is divided by its length to this power; higher is longer. Must
    be at least -16 and at most 16.
    """

    early_stopping: Literal["never"] | bool | None
    """When a beam search ends: true: as soon as there are as many completions as beams; false:
    once no beam is likely to beat them; "never": once none can.
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

    preset: str | None
    """Name of a set of sampler fields that the server keeps; fields of the request go before
    it.
    """
