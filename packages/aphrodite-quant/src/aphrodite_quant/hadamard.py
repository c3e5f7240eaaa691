"""Hadamard matrices of orders that are four times an odd number, each the one that QuIP# uses.

Of an order there are many. Those of quip-sharp are in N. J. A. Sloane's library of Hadamard
matrices (had.12, had.20.pal and so on), which constructions of Paley and Williamson make.
"""

from functools import cache

import torch
from torch import Tensor

_PALEY = (12, 20, 60, 108, 140)
"""Orders q + 1, q a prime of the form 4n + 3."""
_PALEY_TWICE = (28, 36)
"""Orders 2 (q + 1), q a prime of the form 4n + 1."""
_WILLIAMSON = {
    52: "+-+--++ +---+++ ++-+--+ +----+-",
    156: "+++--+-+-----+--++-- ++++---+--++----+-+- +++--++-+---+-+--+-- +---++-+-+-----+++-+",
    172: (
        "+---++--++++-+-+++-++- ++-++++++----+-+--++-+ +++-+-++--+-+-++++-+-- "
        "++---++++-+--+--++----"
    ),
}
"""Orders 4 m: the first halves, the middle included, of the first rows of four circulants."""


@cache
def hadamard_base(order: int, device: torch.device) -> Tensor | None:
    """The matrix [order, order] float32, orthonormal; None: none is known here."""
    if order in _PALEY:
        signs = _paley(order - 1)
    elif order in _PALEY_TWICE:
        signs = _paley_twice(order // 2 - 1)
    elif order in _WILLIAMSON:
        signs = _williamson(_WILLIAMSON[order].split())
    else:
        return None
    return (signs / order**0.5).to(device)


def _characters(prime: int) -> Tensor:
    """[q, q]: 1 where row minus column is a square modulo q, -1 where it is none, 0 if equal."""
    squares = {n * n % prime for n in range(1, prime)}
    values = torch.tensor([0.0] + [1.0 if n in squares else -1.0 for n in range(1, prime)])
    index = torch.arange(prime)
    return values[(index[:, None] - index) % prime]


def _paley(prime: int) -> Tensor:
    signs = torch.ones(prime + 1, prime + 1)
    signs[0, 1:] = -1
    signs[1:, 1:] = _characters(prime) + torch.eye(prime)
    return signs


def _paley_twice(prime: int) -> Tensor:
    core = torch.ones(prime + 1, prime + 1)
    core[0, 0] = 0
    core[1:, 1:] = _characters(prime)
    one = torch.eye(prime + 1)
    return torch.cat(
        (torch.cat((core + one, core - one), 1), torch.cat((core - one, -core - one), 1))
    )


def _williamson(halves: list[str]) -> Tensor:
    """From symmetric circulants A, B, C and D."""
    a, b, c, d = map(_circulant, halves)
    rows = ((a, b, c, d), (-b, a, -d, c), (-c, d, a, -b), (-d, -c, b, a))
    return torch.cat([torch.cat(row, 1) for row in rows])


def _circulant(half: str) -> Tensor:
    row = torch.tensor([1.0 if sign == "+" else -1.0 for sign in half + half[:0:-1]])
    index = torch.arange(len(row))
    return row[(index - index[:, None]) % len(row)]
