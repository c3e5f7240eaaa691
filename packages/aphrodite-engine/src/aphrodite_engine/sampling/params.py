"""What one request asks of generation: limits, stops, seed, and the stages of its sampler."""

from typing import Annotated

import msgspec
from annotated_types import Ge, Le, Lt

from aphrodite_engine.sampling.catalog import AnyStage
from aphrodite_engine.sampling.fields import TokenId, check_struct, check_tokens
from aphrodite_engine.sampling.tokenizer import Tokenizer


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to generate one request."""

    n: Annotated[int, Ge(1), Le(1024)] = 1
    """Completions of the prompt, each with draws of its own."""
    max_tokens: Annotated[int, Ge(0)] | None = None
    """Most tokens to generate; None: the rest of the context."""
    min_tokens: Annotated[int, Ge(0)] = 0
    """End-of-text and stop tokens are impossible before this many."""
    stop: tuple[str, ...] = ()
    """Texts that end the completion; they are cut off."""
    stop_token_ids: tuple[TokenId, ...] = ()
    """Further tokens that end the completion."""
    include_stop_str_in_output: bool = False
    """Keep the stop string that ended the completion."""
    ignore_eos: bool = False
    """Generate on past end-of-text."""
    skip_special_tokens: bool = True
    """Leave control tokens out of the text."""
    spaces_between_special_tokens: bool = True
    """Put a space between neighbouring control tokens, when they are shown."""
    seed: Annotated[int, Ge(-(2**63)), Lt(2**64)] | None = None
    """64-bit; None: drawn at random."""
    logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    """Log-probabilities of the chosen token and this many likeliest ones, before any stage."""
    prompt_logprobs: Annotated[int, Ge(0), Le(20)] | None = None
    """Log-probabilities of each prompt token but the first, and this many likeliest ones."""
    explain: Annotated[int, Ge(1), Le(100)] | None = None
    """What each stage does to each token's candidates, with this many of the likeliest."""
    stages: tuple[AnyStage, ...] = ()
    """The sampler, in order of application; a stage at its defaults is the identity."""

    def __post_init__(self) -> None:
        check_struct(self)

    @property
    def reads_text(self) -> bool:
        """A stage has texts that must be tokens before it can act; see `resolve`."""
        return any(stage.reads_text for stage in self.stages)

    def resolve(self, tokenizer: Tokenizer) -> "SamplingParams":
        """The same with the texts of stages as tokens, too.

        Raises:
            RequestError: a text is no tokens.
        """
        if not self.reads_text:
            return self
        stages = tuple(stage.resolve(tokenizer) for stage in self.stages)
        return msgspec.structs.replace(self, stages=stages)

    def check_vocabulary(self, size: int) -> None:
        """Compare every token id with the vocabulary.

        Raises:
            RequestError: an id that is no token; names field and id.
        """
        for part in (self, *self.stages):
            check_tokens(part, size)
