"""What a reader of a completion sees: text, as it becomes certain."""

import msgspec

from aphrodite_engine.request import FinishReason
from aphrodite_engine.sampling.explanation import Explanation
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs


class TextOutput(msgspec.Struct, frozen=True, kw_only=True):
    """News of one completion, as text."""

    choice: int
    text: str
    """New text: never part of a stop string, never half a character."""
    tokens: list[int]
    """New tokens that belong to the completion (those cut off by a stop string are not)."""
    logprobs: list[TokenLogprobs] = []
    """Aligned with `tokens`, if asked for."""
    offsets: list[int] = []
    """Where each token's text starts in the completion's text; aligned with `tokens`."""
    prompt_logprobs: list[TokenLogprobs] = []
    explanations: list[Explanation] = []
    """Of all new tokens, told or not, if asked for; of those told, if texts are banned."""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop string or stop token that ended it; None at end-of-text."""
    cached_tokens: int = 0
    unseen_tokens: int = 0
    """Generated for completions that are not told: the others of `best_of`."""
