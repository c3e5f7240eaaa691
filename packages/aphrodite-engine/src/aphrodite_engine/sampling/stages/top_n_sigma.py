"""Top-n-sigma."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class TopNSigma(Stage, frozen=True):
    """Removes tokens whose logits lie more than n standard deviations below the best; 0 is off.

    The standard deviation is that of the logits that are possible at all. Tells informative tokens
    from noise in a way that temperature does not change. Try 1 to 2 (arXiv 2411.07641).
    """

    order: ClassVar[int] = 700
    keeps_argmax: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, tuple[str, ...]]] = {"nsigma": ("top_n_sigma",)}
    off_values: ClassVar[Mapping[str, tuple[float, ...]]] = {"nsigma": (-1,)}

    nsigma: Annotated[float, Ge(0)] = 0.0

    @property
    def active(self) -> bool:
        return self.nsigma > 0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        width = rows.columns["nsigma"]
        gap = (-width * rows.ops.deviation(logits)).float()
        rows.ops.keep_near(logits, gap.masked_fill(width <= 0, -math.inf))
