"""Top-a."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.logarithm import log
from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class TopA(Stage, frozen=True):
    """Removes tokens less likely than a times the square of the largest probability; 0 is off.

    Strict where the model is sure, lenient where it is not. Try 0.1 to 0.5. By BlinkDL
    (github.com/BlinkDL/RWKV-LM).
    """

    order: ClassVar[int] = 1000
    keeps_argmax: ClassVar[bool] = True
    computed: ClassVar[tuple[str, ...]] = ("log_a",)

    top_a: Annotated[float, Ge(0)] = 0.0

    @property
    def log_a(self) -> float:
        """Its logarithm."""
        return log(self.top_a)

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        best = logits.amax(-1, keepdim=True)
        total = rows.ops.logsumexp(logits)[:, None]
        rows.ops.keep(logits, (2 * best - total + rows.columns["log_a"]).minimum(best))
