"""What comes out: of one step on the device, and of the engine.

`StepOutput` is made by the runner, aligned with `plan.work`. `RequestOutput` is made by the
scheduler when it commits a step, and crosses to the front process, where text/ turns it into text.
"""

import msgspec

from aphrodite_engine.request import FinishReason
from aphrodite_engine.sampling.explanation import Explanation
from aphrodite_engine.sampling.token_logprobs import TokenLogprobs


class RowOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one row of a plan gave."""

    tokens: list[int] = []
    """Sampled tokens: none for a prefill chunk, one otherwise (more with speculation)."""
    logprobs: list[TokenLogprobs] = []
    """Aligned with `tokens`, if asked for."""
    prompt_logprobs: list[TokenLogprobs] = []
    """Of the prompt tokens this step scored, if asked for."""
    explanations: list[Explanation] = []
    """Aligned with `tokens`, if asked for."""
    remembered: dict[str, float] = {}
    """What the sampler remembers of the row after these tokens: the row starts with it again."""
    error: str | None = None
    """This row failed; the others did not."""


class StepOutput(msgspec.Struct, frozen=True):
    """What a plan gave, aligned with `plan.work`."""

    rows: list[RowOutput]


class RequestOutput(msgspec.Struct, frozen=True, kw_only=True):
    """News of one completion."""

    id: str
    choice: int
    tokens: list[int]
    """New tokens; the one that stopped the completion included."""
    logprobs: list[TokenLogprobs] = []
    prompt_logprobs: list[TokenLogprobs] = []
    explanations: list[Explanation] = []
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    """The stop token, unless it was end-of-text."""
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache; each news says it anew."""
    error: str | None = None
    """With finish_reason `error`: what happened."""
    rewinds: int = 0
    """How often the completion had been taken back: news of a smaller number is out of date."""


class EngineStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since start and gauges of now; read by /metrics."""

    running: int = 0
    waiting: int = 0
    kv_blocks: int = 0
    kv_blocks_free: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    """Computed, the cached ones left out."""
    generation_tokens: int = 0
    prefix_queries: int = 0
    """Prompt tokens looked up in the prefix cache."""
    prefix_hits: int = 0
    """Prompt tokens found there."""
    steps: int = 0
