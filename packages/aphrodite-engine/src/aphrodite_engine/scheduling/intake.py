"""What a request becomes on arrival: its completions, with every limit resolved, or an error.

Whatever passes here can run to its end alone, so nothing that waits can wait for ever.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence

import msgspec

from aphrodite_engine.errors import ConfigError, ContextLengthError, RequestError
from aphrodite_engine.kv import KVGroup
from aphrodite_engine.request import EngineRequest, Request
from aphrodite_engine.sampling.params import SamplingParams
from aphrodite_engine.scheduling.prefix import hash_root
from aphrodite_engine.scheduling.tables import blocks_needed


class SchedulingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler is told of the model and the machine."""

    num_blocks: int
    """KV blocks, the null block included."""
    block_size: int
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    vocab_size: int
    end_tokens: frozenset[int]
    """End-of-text tokens of the model."""
    policy: str = "fcfs"
    """`fcfs` or `priority`."""
    enable_prefix_caching: bool = True
    seed: int | None = 0
    """Seed of the seeds of requests that bring none; None: the operating system's randomness."""

    def __post_init__(self) -> None:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) is below max_num_seqs "
                f"({self.max_num_seqs}), so not every request could take part in a step; "
                f"raise the first or lower the second"
            )


class Intake:
    """Checks requests and resolves them into completions."""

    def __init__(self, groups: Sequence[KVGroup], limits: SchedulingLimits) -> None:
        self._limits = limits
        self.context = _longest(groups, limits)
        """Most tokens that a request can have."""
        self._seeds = random.Random(limits.seed)
        self._sequence = 0

    def accept(self, request: EngineRequest) -> list[Request]:
        """The completions of a request. RequestError if it can never run."""
        max_tokens = self._max_tokens(request)
        self._check_tokens(request)
        params, end_tokens = request.params, self._limits.end_tokens
        stop_tokens = frozenset(params.stop_token_ids)
        seed = self._seeds.getrandbits(64) if params.seed is None else params.seed
        self._sequence += 1
        return [
            Request(
                id=request.id,
                choice=choice,
                prompt=request.prompt,
                params=params,
                seed=seed % 2**64,
                max_tokens=max_tokens,
                stop_tokens=stop_tokens if params.ignore_eos else stop_tokens | end_tokens,
                priority=request.priority,
                arrival=request.arrival,
                sequence=self._sequence,
                hash_root=self._hash_root(params),
            )
            for choice in range(params.n)
        ]

    def _hash_root(self, params: SamplingParams) -> bytes | None:
        """Completions of one prompt share its blocks, and one its own, where others may not."""
        if self._limits.enable_prefix_caching:
            return hash_root()
        shares = params.n > 1 or params.bans is not None
        return hash_root(str(self._sequence)) if shares else None

    def _check_tokens(self, request: EngineRequest) -> None:
        size = self._limits.vocab_size
        for token in (min(request.prompt), max(request.prompt)):
            if not 0 <= token < size:
                raise RequestError(
                    f"the prompt holds token {token}, but tokens go from 0 to {size - 1}", "prompt"
                )
        request.params.check_vocabulary(size)

    def _max_tokens(self, request: EngineRequest) -> int:
        prompt, wanted = len(request.prompt), request.params.max_tokens
        if not prompt:
            raise RequestError("the prompt has no tokens; send at least one", "prompt")
        room = self.context - prompt
        if wanted is None:
            if room < 1:
                raise self._too_long(f"{prompt} in the prompt and at least 1 to generate", "prompt")
            return room
        if wanted > room:
            field = "prompt" if room < 0 else "max_tokens"
            raise self._too_long(f"{prompt} in the prompt and {wanted} to generate", field)
        return wanted

    def _too_long(self, requested: str, field: str) -> ContextLengthError:
        own = self._limits.max_model_len
        because = f" ({own} by its length, less by the KV memory)" if self.context < own else ""
        return ContextLengthError(
            f"this model's maximum context length is {self.context} tokens{because}, but the "
            f"request wants {requested}; shorten the prompt or lower max_tokens",
            field,
        )


def _longest(groups: Sequence[KVGroup], limits: SchedulingLimits) -> int:
    """Most tokens that a request can have, by the model's length and by the pool."""

    def needed(length: int) -> int:
        chunk = limits.max_num_batched_tokens
        return blocks_needed(groups, limits.block_size, length, chunk)

    lengths = range(1, limits.max_model_len + 1)
    longest = bisect_right(lengths, limits.num_blocks - 1, key=needed)
    if not longest:
        raise ConfigError(
            f"{limits.num_blocks} KV blocks do not hold a single token, which takes "
            f"{needed(1) + 1}; give the KV cache more memory"
        )
    return longest
