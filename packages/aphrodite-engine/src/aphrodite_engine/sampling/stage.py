"""What a sampler stage is.

The class is the declaration: its annotated fields are the wire fields with their bounds, its
docstring is the documentation in the API and the client, `apply` is the maths. Presence in
stages/ registers it (catalog.py). Law of defaults: a stage whose fields stand at their defaults is
the identity.

A stage knows rows of logits and its own parameters. It knows nothing of requests, batches or the
order in which others run: sampler.py gathers the rows that use it and hands it those alone. Nor
does it import torch, whose tensors it is given: the process that only reads declarations has none.

A stage may remember numbers of a row from token to token (`remembers`). They are on the device:
`apply` reads `rows.remembered`, `update` gives the next ones when the token is known. They follow
the request: a row that is preempted starts again with the numbers that its last token left, and
each completion of a request has its own. What follows from the tokens alone is worked out again
instead (`recalls_all`). Rows without such stages pay nothing.
"""

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from aphrodite_engine.errors import RequestError
from aphrodite_engine.sampling.fields import LARGEST, Field, check_value, fields_of
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.tokenizer import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Stage(msgspec.Struct, frozen=True, tag=_snake):
    """One step from logits to the distribution that is drawn from.

    Fields are numbers (each becomes a column of the batch), `tuple[TokenId, …]` or
    `dict[TokenId, float]` (each becomes entries of the batch), or anything else of which `tables`
    makes arrays.
    """

    order: ClassVar[int]
    """Place in the default order; lower runs first."""
    wire: ClassVar[bool] = True
    """Requests set its fields; false: the sampler makes it from a request's limits."""
    keeps_argmax: ClassVar[bool] = False
    """The likeliest token stays the likeliest, so greedy rows skip it."""
    shapes_draws: ClassVar[bool] = False
    """It is about draws, whatever the likeliest token becomes, so greedy rows skip it."""
    needs_history: ClassVar[bool] = False
    """It reads `rows.history`."""
    needs_repeats: ClassVar[bool] = False
    """It reads `rows.history.repeats`."""
    beams: ClassVar[bool] = False
    """A mask or a bias of the next token, so a beam search honours it; see `after`."""
    computed: ClassVar[tuple[str, ...]] = ()
    """Properties, floats, that become columns as fields do."""
    remembers: ClassVar[tuple[str, ...]] = ()
    """What it remembers of a row, by name; `recall` gives the numbers at the first token."""
    recalls_all: ClassVar[bool] = False
    """`recall` gives the numbers after any tokens, so no copies of them come back to the host."""
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Per field: other names on the wire."""
    off_values: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Per field: values outside its bounds that clients send for "off"."""
    empty_values: ClassVar[frozenset[str]] = frozenset()
    """Fields for which an empty list is a value of its own, and not the default."""
    hidden: ClassVar[frozenset[str]] = frozenset()
    """Fields that requests do not set: `resolve` does."""
    reads_text: ClassVar[bool] = False
    """It has fields that are texts, so it needs `resolve`."""

    def __post_init__(self) -> None:
        for field in fields_of(type(self)):
            value = getattr(self, field.name)
            if value not in self.off_values.get(field.name, ()):
                check_value(field.name, value, field.annotation)
        if any(LARGEST < abs(getattr(self, name)) < math.inf for name in self.computed):
            given = self.given
            found = " and ".join(f"{name} {value}" for name, value in given.items())
            raise RequestError(
                f"what follows from {found} must fit in 32 bits: up to {LARGEST}", next(iter(given))
            )

    @classmethod
    def name(cls) -> str:
        """Name on the wire, in sampler orders and in messages."""
        return _snake(cls.__name__)

    @classmethod
    def wire_fields(cls) -> tuple[Field, ...]:
        """Its fields that requests set."""
        return tuple(field for field in fields_of(cls) if field.name not in cls.hidden)

    @property
    def active(self) -> bool:
        """False: surely the identity, so it need not run."""
        return self != type(self)()

    @property
    def given(self) -> Mapping[str, Any]:
        """Its wire fields as a request that asks for it would send them.

        Those at their defaults are left out, unless all are: the stage says off then.
        """
        fields = self.wire_fields()
        values = {each.name: getattr(self, each.name) for each in fields}
        return {f.name: values[f.name] for f in fields if values[f.name] != f.default} or values

    @property
    def acts(self) -> bool:
        """False: the identity in a row that starts now, though it may act in a later one."""
        return self.active

    @classmethod
    def read(cls, name: str, value: object) -> object:
        """The value of a wire field as it is declared: some clients spell some otherwise."""
        return value

    def resolve(self, tokenizer: Tokenizer) -> "Stage":
        """The same with its texts as tokens, too. Called once per request, where text is known."""
        return self

    def last_place(self, prompt_length: int) -> int | None:
        """Index, counted from the prompt's first token, of the last token it may change; None: any.

        A row goes on without it from there.
        """
        return None

    def after(self, output: Sequence[int]) -> "Stage":
        """What does the same to the next token if this output is taken for part of the prompt."""
        return self

    def recall(self, tokens: Sequence[int]) -> Mapping[str, float]:
        """What it remembers of a row that starts with these tokens, of which nothing is known."""
        return {name: getattr(self, name) for name in self.remembers}

    @classmethod
    def tables(cls, stages: Sequence[Any]) -> Mapping[str, object]:
        """Arrays of the batch besides columns and entries, made on the host when rows meet.

        Nested lists of integers or buffers of bytes, for `rows.tables`; their shapes are known to
        `apply` without a wait.

        Args:
            stages: of this class, one per row of the pass, in order.
        """
        return {}

    @classmethod
    @abstractmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        """Change logits [n, V] float32 in place; -inf: impossible. Row i depends on row i alone."""

    @classmethod
    def update(cls, tokens: "Tensor", rows: Rows) -> Mapping[str, "Tensor"]:
        """What it remembers, [n, 1] each, after tokens [n, 1] int64 were drawn.

        Called if it remembers anything, after all stages, with the record that `apply` was given.
        Row i depends on row i alone. A row that failed has a token that means nothing.
        """
        return rows.remembered
