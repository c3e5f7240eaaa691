"""The path through a trellis that comes nearest to 256 numbers (QTIP, arXiv 2406.11235).

Each number is decoded from the last 16 bits of its path. Of all paths whose last r bits agree, the
best so far survives, whatever came before: with r = 16 that is Viterbi's search, exact; with fewer,
each survivor is measured by its own 16 bits, and a path that would have been best may be lost.
Paths are rings: a first search, of the numbers turned by half, settles the bits that go before the
first number; the second begins and ends with them.
"""

import torch
from torch import Tensor
from torch.nn.functional import embedding

_LENGTH = 256
_STATE = 16
_WORK = 12
"""The logarithm of the paths that are tried for a number, if r is 8 or more so."""
_AT_ONCE = 1 << 19
"""Numbers of paths in memory."""
_NEVER = 1e30


def find_paths(targets: Tensor, bits: int, numbers: Tensor) -> Tensor:
    """Symbols [n, 256] int64 for targets [n, 256]; numbers [65536] of the states, all float32."""
    kept = max(_WORK - bits, 8)
    step = max(1, _AT_ONCE >> (kept + bits))
    found = [_rings(part, bits, numbers, kept) for part in torch.split(targets, step)]
    return torch.cat(found)


def _rings(targets: Tensor, bits: int, numbers: Tensor, kept: int) -> Tensor:
    half, around = _LENGTH // 2, -(-_STATE // bits)
    turned = _path(targets.roll(half, 1), bits, numbers, kept, None)
    return _path(targets, bits, numbers, kept, turned[:, half - around : half])


def _path(targets: Tensor, bits: int, numbers: Tensor, kept: int, ends: Tensor | None) -> Tensor:
    """Symbols; `ends` are those that the path both follows and ends with."""
    count, device = len(targets), targets.device
    fan, runs = 1 << bits, 1 << (kept - bits)
    table = numbers.view(-1, fan)
    symbols = torch.arange(fan, device=device)
    origins = torch.arange(fan, dtype=torch.int32, device=device).view(1, fan, 1, 1)
    state, cost = _start(count, bits, kept, ends, device)
    steps: list[Tensor] = []
    free = _LENGTH if ends is None else _LENGTH - ends.shape[1]
    for time in range(free):
        state = state.view(count, fan, runs)
        tried = embedding(state & ((1 << (_STATE - bits)) - 1), table)
        tried.sub_(targets[:, time, None, None, None]).square_().add_(
            cost.view(count, fan, runs, 1)
        )
        # The origin in the lowest bits of the cost: one minimum finds both.
        least = (tried.view(torch.int32) & -fan | origins).amin(1)
        origin = (least & (fan - 1)).long()
        cost = (least & -fan).view(torch.float32).flatten(1)
        run = torch.arange(runs, device=device).view(1, runs, 1)
        before = state.flatten(1).gather(1, (origin * runs + run).flatten(1))
        state = (before.view(count, runs, fan) << bits | symbols) & 0xFFFF
        steps.append(origin.flatten(1).to(torch.uint8))
    if ends is None:
        return _back(steps, cost.argmin(1), bits, kept)
    # No two paths are one here, though their last bits agree: those before still count.
    for symbol, target in zip(ends.unbind(1), targets[:, free:].unbind(1), strict=True):
        state = (state.flatten(1) << bits | symbol[:, None]) & 0xFFFF
        cost = cost + (numbers[state] - target[:, None]).square()
    return torch.cat((_back(steps, cost.argmin(1), bits, kept), ends), 1)


def _start(
    count: int, bits: int, kept: int, ends: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """States and costs [n, 2 ** kept] before the first number."""
    state = torch.arange(1 << kept, device=device).expand(count, -1).clone()
    if ends is None:
        # Any bits may go before; these are spread evenly.
        return (state * 40503) << kept & 0xFFFF | state, torch.zeros(
            count, 1 << kept, device=device
        )
    last = torch.zeros(count, dtype=torch.int64, device=device)
    for symbol in ends.unbind(1):
        last = (last << bits | symbol) & 0xFFFF
    alone = state == (last & ((1 << kept) - 1))[:, None]
    cost = torch.zeros(count, 1 << kept, device=device).where(alone, _NEVER)
    return last[:, None].where(alone, state), cost


def _back(steps: list[Tensor], at: Tensor, bits: int, kept: int) -> Tensor:
    """The symbols of the path that ends in survivor `at` [n]."""
    symbols: list[Tensor] = []
    for origins in reversed(steps):
        origin = origins.gather(1, at[:, None]).squeeze(1).long()
        symbols.append(at & ((1 << bits) - 1))
        at = origin << (kept - bits) | at >> bits
    return torch.stack(symbols[::-1], 1)
