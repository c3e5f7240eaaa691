"""Eta cutoff."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.logarithm import log_of_cutoff
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class EtaCutoff(Stage, frozen=True):
    """Removes tokens below a probability that falls with entropy, in units of 0.0001; 0 is off.

    With e the parameter's probability and H the entropy in nats, tokens go that are less likely
    than both e and sqrt(e) * exp(-H): where the model is unsure, less is cut off than by an epsilon
    cutoff. Try 3 to 20 (arXiv 2210.15191).
    """

    order: ClassVar[int] = 1300
    keeps_argmax: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("log_epsilon",)

    eta_cutoff: Annotated[float, Ge(0)] = 0.0

    @property
    def log_epsilon(self) -> float:
        """The logarithm of the probability."""
        return log_of_cutoff(self.eta_cutoff)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        epsilon = rows.columns["log_epsilon"].double()
        entropy, surprise, _ = rows.ops.uncertainty(logits)
        gap = epsilon.minimum(epsilon / 2 - entropy) + surprise
        rows.ops.keep_near(logits, gap.clamp(max=0).float())
