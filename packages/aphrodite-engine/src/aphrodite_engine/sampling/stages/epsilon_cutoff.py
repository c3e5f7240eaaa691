"""Epsilon cutoff."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.logarithm import log_of_cutoff
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class EpsilonCutoff(Stage, frozen=True):
    """Removes tokens below a fixed probability, given in units of 0.0001; 0 is off.

    Cuts off the tail that the model smooths over what it never saw. Try 3 to 9
    (arXiv 2210.15191).
    """

    order: ClassVar[int] = 1400
    keeps_argmax: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("least",)
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"epsilon_cutoff": ("eps_cutoff",)}

    epsilon_cutoff: Annotated[float, Ge(0)] = 0.0

    @property
    def least(self) -> float:
        """The logarithm of the probability."""
        return log_of_cutoff(self.epsilon_cutoff)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        total = rows.ops.logsumexp(logits)[:, None]
        best = logits.amax(-1, keepdim=True)
        rows.ops.keep(logits, (total + rows.columns["least"]).minimum(best))
