"""How uncertain a distribution is. No torch here: see stage.py."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ALMOST_IMPOSSIBLE = -1e9


def entropy_of(logs: "Tensor") -> "Tensor":
    """In nats, [n, 1], of logarithms of probabilities [n, V]; impossible tokens add nothing."""
    return -(logs.exp() * logs.clamp(min=_ALMOST_IMPOSSIBLE)).sum(-1, keepdim=True)
