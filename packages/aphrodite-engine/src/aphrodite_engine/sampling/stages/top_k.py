"""Top-k."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from annotated_types import Ge

from aphrodite_engine.sampling.rows import Rows
from aphrodite_engine.sampling.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor


class TopK(Stage, frozen=True):
    """Keeps the k likeliest tokens, and those exactly as likely as the last of them; 0 is off."""

    order: ClassVar[int] = 800
    keeps_argmax: ClassVar[bool] = True
    off_values: ClassVar[Mapping[str, tuple[float, ...]]] = {"top_k": (-1,)}

    top_k: Annotated[int, Ge(0)] = 0

    @property
    def active(self) -> bool:
        return self.top_k > 0

    @classmethod
    def apply(cls, logits: "Tensor", rows: Rows) -> None:
        rows.ops.keep_top_k(logits, rows.columns["top_k"])
