"""A request and its completions.

`EngineRequest` is what arrives: plain data that crosses the process boundary. `Request` is one of
its `n` completions at work, the only mutable object of the domain. The scheduler owns it; status,
blocks and counts change only in scheduling/.
"""

import enum
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from aphrodite_engine.sampling.params import SamplingParams

FinishReason = Literal["stop", "length", "abort", "error"]


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt and what to make of it."""

    id: str
    prompt: list[int]
    """Token ids, at least one."""
    params: SamplingParams
    priority: int = 0
    """Lower runs first, under the priority policy."""
    arrival: float
    """time.monotonic() of the front process."""


class Status(enum.Enum):
    """Where a request stands."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    HELD = enum.auto()
    """At its end, unless its reader takes it back."""
    FINISHED = enum.auto()


@dataclass(slots=True, eq=False)
class Request:
    """One completion at work."""

    id: str
    """Of the EngineRequest."""
    choice: int
    """0 … n - 1."""
    prompt: list[int]
    params: SamplingParams
    seed: int
    """64-bit, resolved."""
    max_tokens: int
    """Resolved: never past the context."""
    stop_tokens: frozenset[int]
    """End-of-text (unless ignored) and the request's own stop tokens."""
    priority: int
    arrival: float
    output: list[int] = field(default_factory=list[int])
    """Tokens known to the host; at most one more may be on its way from the device."""
    computed: int = 0
    """Positions whose key and value are in the cache or planned to be."""
    pending: int = 0
    """Tokens planned but not yet committed (0 or 1)."""
    blocks: list[list[int]] = field(default_factory=list[list[int]])
    """Per KV group: block of each block-index; 0 where it has left the window."""
    row: int | None = None
    """Row in the device's batch state, while running."""
    status: Status = Status.WAITING
    cached: int = 0
    """Prompt tokens that the prefix cache supplied at first admission."""
    sequence: int = 0
    """Order of arrival at the scheduler."""
    committed: int = 0
    """Positions whose key and value are in the cache for certain: their step came back."""
    remembered: dict[str, float] = field(default_factory=dict[str, float])
    """What the sampler remembers of it after its last known token."""
    memories: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    """The same after each token of the output, if it may be taken back."""
    rewinds: int = 0
    """Times its output was taken back; work planned before the last time is nobody's."""
    banned_at: int = 0
    """Position whose token may not be one of `banned`."""
    banned: tuple[int, ...] = ()
    preemptions: int = 0
    """Times it lost its blocks and began again."""
    hash_root: bytes | None = None
    """Parent of its first block's hash: who may share its blocks; None: nobody."""
    hashes: list[bytes] = field(default_factory=list[bytes])
    """Hash of each full block, as far as anyone asked."""

    @property
    def known(self) -> int:
        """Tokens the host knows."""
        return len(self.prompt) + len(self.output)

    @property
    def length(self) -> int:
        """Tokens known or on their way."""
        return self.known + self.pending

    @property
    def positions(self) -> int:
        """Positions that are ever computed: the last token's never is."""
        return len(self.prompt) + max(self.max_tokens - 1, 0)

    @property
    def params_now(self) -> SamplingParams:
        """With what is banned at the next token."""
        if self.banned and self.banned_at == self.known:
            return self.params.banning(self.banned_at, self.banned)
        return self.params

    def rewind(self, kept: int, banned: tuple[int, ...], block_size: int) -> None:
        """Forget the output behind its first `kept` tokens; what comes next is none of `banned`."""
        del self.output[kept:]
        del self.memories[kept:]
        del self.hashes[self.known // block_size :]
        self.remembered = self.memories[-1] if self.memories else {}
        self.banned_at, self.banned = self.known, banned
        self.computed = self.committed = self.pending = 0
        self.rewinds += 1

    def tokens(self, start: int, stop: int) -> list[int]:
        """Known tokens at positions start … stop - 1."""
        prompt_length = len(self.prompt)
        if stop <= prompt_length:
            return self.prompt[start:stop]
        output = self.output[max(start - prompt_length, 0) : stop - prompt_length]
        return self.prompt[start:] + output
