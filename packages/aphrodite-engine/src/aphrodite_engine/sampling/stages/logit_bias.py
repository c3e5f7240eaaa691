"""Biases of single tokens."""

from typing import TYPE_CHECKING, Annotated, ClassVar

import msgspec
from annotated_types import Ge, Le

from aphrodite_engine.sampling.fields import TokenId
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

Bias = Annotated[float, Ge(-100), Le(100)]


class LogitBias(Stage, frozen=True):
    """Adds to the logits of tokens, given as a map from token id to bias; empty is off."""

    order: ClassVar[int] = 200
    beams: ClassVar[bool] = True

    logit_bias: dict[TokenId, Bias] = msgspec.field(default_factory=dict[TokenId, Bias])

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        bias = rows.entries["logit_bias"]
        logits[bias.row, bias.token] += bias.value
