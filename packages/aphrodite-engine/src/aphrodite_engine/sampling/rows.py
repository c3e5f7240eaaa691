"""What a stage sees of the batch: its own rows' parameters, positions, history and random numbers.

Everything is a tensor on the device of the logits; n is the number of rows that use the stage.
Knows nothing of stages, requests or how rows come together; sampler.py makes these records.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from aphrodite_kernels.protocols import Uniform
from torch import Tensor


class Purpose(enum.IntEnum):
    """What a random number decides; numbers of different purposes are independent."""

    DRAW = 0


@dataclass(frozen=True, slots=True)
class Entries:
    """A parameter that maps tokens to values (or lists tokens), of all rows, flattened."""

    row: Tensor
    """[E] int64, index into the n rows."""
    token: Tensor
    """[E] int64."""
    value: Tensor
    """[E] float32; ones for a list of tokens."""


@dataclass(frozen=True, slots=True)
class History:
    """Tokens of the rows, as indices for gather and scatter: duplicates are expected."""

    seen: Tensor
    """[n, L] int64: prompt and output; shorter rows repeat their last token."""
    generated: Tensor
    """[n, M] int64: output alone; shorter rows repeat their last token."""
    generated_valid: Tensor
    """[n, M] bool: false where `generated` repeats, or there is no output at all."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Where the rows stand in their random sequences."""

    seeds: Tensor
    """[n] int64."""
    choices: Tensor
    """[n] int32."""
    positions: Tensor
    """[n] int32: index, in prompt and output, of the token that is being drawn."""
    uniform_op: Uniform

    def uniform(self, purpose: Purpose) -> Tensor:
        """[n] float32 in [0, 1), a function of (seed, choice, position, purpose) alone."""
        return self.uniform_op(self.seeds, self.choices, self.positions, int(purpose))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The n rows that a stage works on."""

    columns: Mapping[str, Tensor]
    """Per number field of the stage: [n, 1], float32 or int64."""
    entries: Mapping[str, Entries]
    """Per field of the stage that maps or lists tokens."""
    draws: Draws
    history: History | None
    """Given to stages that declare `needs_history`."""

    @property
    def positions(self) -> Tensor:
        """[n, 1] int32."""
        return self.draws.positions[:, None]


def history_of(tokens: Tensor, lengths: Tensor, prompt_lengths: Tensor, extent: int) -> History:
    """Read the histories of rows.

    Args:
        tokens: [n, at least extent] int32.
        lengths: [n, 1] int64, at least 1.
        prompt_lengths: [n, 1] int64.
        extent: the largest length.
    """
    last = lengths - 1
    steps = torch.arange(extent, device=tokens.device)[None]
    seen = tokens.gather(1, torch.minimum(steps, last)).long()
    return History(seen=seen, generated=seen, generated_valid=(steps >= prompt_lengths))
