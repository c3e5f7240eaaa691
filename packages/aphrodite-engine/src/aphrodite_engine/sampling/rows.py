"""What a stage sees of the batch: its own rows' parameters, positions, history and random numbers.

Everything is a tensor on the device of the logits; n is the number of rows that use the stage.
Knows nothing of stages, requests or how rows come together; sampler.py makes these records.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aphrodite_kernels.backend import Backend
    from aphrodite_kernels.sampling_protocols import Uniform
    from torch import Tensor


class Purpose(enum.IntEnum):
    """What a random number decides; numbers of different purposes are independent."""

    DRAW = 0
    XTC = 1


@dataclass(frozen=True, slots=True)
class Entries:
    """A parameter that lists tokens or maps them to numbers, of all n rows, flattened."""

    row: "Tensor"
    """[E] int64, 0 … n - 1."""
    token: "Tensor"
    """[E] int64."""
    value: "Tensor"
    """[E] float32: what the token maps to; ones for a list."""


@dataclass(frozen=True, slots=True)
class Output:
    """Tokens generated so far, as columns for gather and scatter; tokens recur."""

    tokens: "Tensor"
    """[n, M] int64; a shorter row repeats its last token."""
    counts: "Tensor"
    """[n, M] bool: false where `tokens` repeats. Column 0: the row has an output."""
    places: "Tensor"
    """[n, M] int64: indices, counted from the prompt's first token."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Places of the histories, and how many tokens before each are the last tokens of all.

    On a CPU P places, those that were asked for. On a device of its own all, [n, L]: to leave any
    out would need a wait. So what is read of a place must hold for any.
    """

    row: "Tensor"
    """[P] or [n, 1] int64, 0 … n - 1."""
    place: "Tensor"
    """[P] or [n, L] int64; negative: no place of this row."""
    token: "Tensor"
    """[P] or [n, L] int64: the token there; some token at a negative place."""
    length: "Tensor"
    """[P] or [n, L] int32."""

    def of(self, column: "Tensor") -> "Tensor":
        """A number per row [n, 1], for each place."""
        return column if self.row.dim() == 2 else column[self.row, 0]

    def within(self, width: int) -> "Tensor":
        """[P] or [n · L] int64: row · width + token."""
        return (self.row * width + self.token).view(-1)


@dataclass(frozen=True, slots=True)
class History:
    """Tokens so far."""

    tokens: "Tensor"
    """[n, L] int32: prompt and output; beyond a row's length anything."""
    places: "Tensor"
    """[L] int64: 0 … L - 1."""
    lengths: "Tensor"
    """[n, 1] int64: tokens of prompt and output."""
    prompts: "Tensor"
    """[n, 1] int64: tokens of the prompt."""
    seen: Callable[[], "Tensor"]
    """Gathers prompt and output as columns [n, L] int64; a shorter row repeats its last token."""
    output: Callable[[], Output]
    """Gathers the output alone."""
    repeats: Callable[["Tensor"], Repeats]
    """Places whose length is at least a row's [n, 1]. For stages that declare `needs_repeats`."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Where n rows stand in their random sequences."""

    seeds: "Tensor"
    """[n] int64."""
    choices: "Tensor"
    """[n] int32."""
    positions: "Tensor"
    """[n] int32: index, counted from the prompt's first token, of the token being drawn."""
    op: "Uniform"

    def uniform(self, purpose: Purpose) -> "Tensor":
        """[n] float32 in [0, 1), a function of (seed, choice, position, purpose) alone."""
        return self.op(self.seeds, self.choices, self.positions, int(purpose))

    def select(self, index: "Tensor | slice") -> "Draws":
        """Those of some rows."""
        return Draws(self.seeds[index], self.choices[index], self.positions[index], self.op)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The n rows that a stage works on."""

    columns: Mapping[str, "Tensor"]
    """Per number field of the stage: [n, 1], float32 or int64; float32 per computed one."""
    given: frozenset[str]
    """Number fields that are not at their default in every row; computed ones that are not 0."""
    entries: Mapping[str, Entries]
    """Per field of the stage that lists or maps tokens."""
    tables: Mapping[str, "Tensor"] = field(default_factory=dict[str, "Tensor"])
    """What `Stage.tables` made of the rows' stages."""
    draws: Draws
    ops: "Backend"
    """Of the device of the logits."""
    history: History | None = None
    """Given to stages that declare `needs_history`."""
    remembered: Mapping[str, "Tensor"] = field(default_factory=dict[str, "Tensor"])
    """Per name that the stage remembers: [n, 1] float32, as the last token left it."""
    notes: dict[str, "Tensor"] = field(default_factory=dict[str, "Tensor"])
    """What `apply` leaves for `update`, which sees the same record."""

    @property
    def positions(self) -> "Tensor":
        """[n, 1] int32: index of the token being drawn."""
        return self.draws.positions[:, None]
