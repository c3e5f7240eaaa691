"""The paths through a trellis that come nearest to given numbers (QTIP, arXiv 2406.11235).

Viterbi's search: what goes on from a state is as many of its lowest bits, its suffix, as the next
symbol leaves of 16, so that of all states with one suffix the best alone survives. Paths are rings:
a first search, of the numbers around the seam alone, settles the suffix there; the second begins
and ends with it.
"""

import torch
from torch import Tensor

_RING = 256
_STATES = 1 << 16
_AT_ONCE = 1 << 22
"""Costs in memory."""
_NEVER = 1e30
_Bits = tuple[int, int]
"""Of symbols at even and at odd places."""


def find_paths(targets: Tensor, bits: float, numbers: Tensor) -> Tensor:
    """See FindPaths; so many rings at a time as memory is allowed."""
    parts = torch.split(targets, _AT_ONCE // _STATES)
    bits_at = int(bits), int(2 * bits) - int(bits)
    return torch.cat([_rings(part, bits_at, numbers) for part in parts])


def _rings(targets: Tensor, bits_at: _Bits, numbers: Tensor) -> Tensor:
    reach = 96 if bits_at[0] < 3 else 48
    around = targets.roll(reach, 1)[:, : 2 * reach]
    anything = targets.new_zeros(len(targets), _STATES >> bits_at[0])
    cost, origins = _walk(around, bits_at, numbers, anything)
    seam = _back(origins[reach:], cost.argmin(1), bits_at)[1]
    cost = torch.full_like(cost, _NEVER).scatter_(1, seam[:, None], 0.0)
    _, origins = _walk(targets, bits_at, numbers, cost)
    return _back(origins, seam, bits_at)[0]


def _walk(
    targets: Tensor, bits_at: _Bits, numbers: Tensor, cost: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Costs [n, suffixes] after all targets [n, T]; for each, the bits that survivors lost."""
    origins: list[Tensor] = []
    for place, target in enumerate(targets.unbind(1)):
        own, following = bits_at[place % 2], bits_at[1 - place % 2]
        fan = 1 << following
        of_state = numbers.view(fan, -1, 1 << own)
        lost = (of_state - target[:, None, None, None]).square_()
        cost, origin = lost.add_(cost.view(len(cost), fan, -1, 1)).flatten(2).min(1)
        origins.append(origin.to(torch.uint8))
    return cost, origins


def _back(origins: list[Tensor], suffix: Tensor, bits_at: _Bits) -> tuple[Tensor, Tensor]:
    """Symbols [n, T] uint8 of paths that end with `suffix` [n]; which suffixes they begin with."""
    symbols: list[Tensor] = []
    for place in reversed(range(len(origins))):
        own, following = bits_at[place % 2], bits_at[1 - place % 2]
        symbols.append((suffix & ((1 << own) - 1)).to(torch.uint8))
        highest = origins[place].gather(1, suffix[:, None]).squeeze(1).long()
        suffix = (highest * (_STATES >> following) + suffix) >> own
    return torch.stack(symbols[::-1], 1), suffix
