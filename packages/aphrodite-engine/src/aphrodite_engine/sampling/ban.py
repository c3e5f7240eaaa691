"""How tokens are made impossible. Knows no torch: it is given tensors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_NEVER = float("-inf")


def ban(logits: "Tensor", places: "Tensor", active: "Tensor | None" = None) -> None:
    """Ban tokens of logits [n, V], in place; a row that would lose all its tokens stays as it is.

    Args:
        logits: contiguous.
        places: [P] int64, row · V + token; one may come several times.
        active: [P] bool; false: not this one. None: all.
    """
    flat = logits.view(-1)
    before = flat.gather(0, places)
    change = before.new_zeros(before.shape)
    change = change.fill_(_NEVER) if active is None else change.masked_fill_(active, _NEVER)
    flat.scatter_add_(0, places, change)
    lost = (logits.amax(-1) == _NEVER).gather(0, places // logits.shape[1])
    flat.scatter_(0, places, before.where(lost, flat.gather(0, places)))
