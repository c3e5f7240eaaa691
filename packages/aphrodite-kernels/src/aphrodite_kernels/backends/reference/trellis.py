"""The paths through a trellis that come nearest to given numbers (QTIP, arXiv 2406.11235).

Viterbi's search: what goes on from a state depends on its lowest 16 - bits bits, its suffix, so
that of all states with one suffix the best alone survives. Paths are rings: a first search, of the
numbers around the seam alone, settles the suffix there; the second begins and ends with it.
"""

import torch
from torch import Tensor

_RING = 256
_STATES = 1 << 16
_AT_ONCE = 1 << 22
"""Costs in memory."""
_NEVER = 1e30


def find_paths(targets: Tensor, bits: int, numbers: Tensor) -> Tensor:
    """See FindPaths; so many rings at a time as memory is allowed."""
    parts = torch.split(targets, _AT_ONCE // _STATES)
    return torch.cat([_rings(part, bits, numbers) for part in parts])


def _rings(targets: Tensor, bits: int, numbers: Tensor) -> Tensor:
    count, suffixes = len(targets), _STATES >> bits
    reach = 96 if bits < 3 else 48
    around = targets.roll(reach, 1)[:, : 2 * reach]
    cost, origins = _walk(around, bits, numbers, targets.new_zeros(count, suffixes))
    seam = _back(origins[reach:], cost.argmin(1), bits)[1]
    cost = torch.full_like(cost, _NEVER).scatter_(1, seam[:, None], 0.0)
    _, origins = _walk(targets, bits, numbers, cost)
    return _back(origins, seam, bits)[0]


def _walk(targets: Tensor, bits: int, numbers: Tensor, cost: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Costs [n, suffixes] after all targets [n, T]; for each, the bits that survivors lost."""
    fan = 1 << bits
    of_state = numbers.view(fan, -1, fan)
    origins: list[Tensor] = []
    for target in targets.unbind(1):
        lost = (of_state - target[:, None, None, None]).square_()
        cost, origin = lost.add_(cost.view(len(cost), fan, -1, 1)).flatten(2).min(1)
        origins.append(origin.to(torch.uint8))
    return cost, origins


def _back(origins: list[Tensor], suffix: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Symbols [n, T] uint8 of paths that end with `suffix` [n]; which suffixes they begin with."""
    suffixes, symbols = _STATES >> bits, list[Tensor]()
    for origin in reversed(origins):
        symbols.append((suffix & ((1 << bits) - 1)).to(torch.uint8))
        highest = origin.gather(1, suffix[:, None]).squeeze(1).long()
        suffix = (highest * suffixes + suffix) >> bits
    return torch.stack(symbols[::-1], 1), suffix
