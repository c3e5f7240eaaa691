"""One step, as the scheduler wants it: ids and deltas, plain data.

Workers own the state of rows (tokens, block tables, sampling parameters); a plan tells them what
changes and what to compute. It never carries `Request` objects, so it can cross processes.
A worker applies a plan in this order: release, start, blocks, then compute.
"""

import msgspec

from aphrodite_engine.sampling.params import SamplingParams


class RowStart(msgspec.Struct, frozen=True, kw_only=True):
    """A request takes (or, after preemption, takes again) a row."""

    row: int
    request: str
    choice: int
    tokens: list[int]
    """Everything known: prompt, then output."""
    prompt_length: int
    params: SamplingParams
    seed: int
    stop_tokens: list[int]
    remembered: dict[str, float] = {}
    """What the sampler remembered of the completion after the last of `tokens`."""


class BlockUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """Entries of a row's block table: table[group][row, start : start + len(blocks)] = blocks."""

    row: int
    group: int
    start: int
    blocks: list[int]


class RowWork(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one row computes in this step."""

    row: int
    start: int
    """First position; the row's tokens before it are in the cache."""
    count: int
    """Tokens to compute, at least one."""
    samples: bool
    """The last position's logits give a token, which is then the row's token start + count."""
    prompt_logprobs: bool = False
    """Also score the prompt tokens start + 1 … start + count that belong to the prompt."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One step."""

    step: int
    released: list[int]
    """Rows that are free from here on."""
    started: list[RowStart]
    blocks: list[BlockUpdate]
    work: list[RowWork]
    """In the order of the batch; empty: nothing to do."""

    @property
    def tokens(self) -> int:
        return sum(work.count for work in self.work)
