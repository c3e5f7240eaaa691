"""Cases of the search for paths through a trellis."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.layouts.trellis import TrellisCodebook, trellis_numbers
from aphrodite_kernels.testing.case import Case, Draw


def path_cases() -> Iterator[Case]:
    """Few: the reference takes its time."""
    for rings, bits in ((1, 4), (5, 8)):
        yield Case(f"find_paths-{rings}x{bits}", partial(check_paths, rings=rings, bits=bits))


def check_paths(draw: Draw, rings: int, bits: int) -> None:
    """As near to the targets as the reference's, which may be others of equal cost."""
    targets = 0.85 * draw.float32(rings, 256)
    numbers = trellis_numbers(TrellisCodebook.MUL1, targets.device).float()
    expected = draw.reference().find_paths(targets, bits, numbers)
    actual = draw.backend.find_paths(targets, bits, numbers)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == torch.uint8, f"dtype {actual.dtype}, expected uint8"
    assert int(actual.max()) < 1 << bits, f"a symbol of {bits} bits is {int(actual.max())}"
    found, wanted = (
        (numbers[_states(symbols, bits)] - targets).square().sum(1)
        for symbols in (actual, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=0)


def _states(symbols: Tensor, bits: int) -> Tensor:
    """The last 16 bits of the ring up to each symbol."""
    places = torch.arange(bits - 1, -1, -1, device=symbols.device)
    ring = (symbols.long()[..., None] >> places & 1).flatten(1)
    ends = torch.arange(1, 257, device=symbols.device)[:, None] * bits
    window = (ends - torch.arange(16, 0, -1, device=symbols.device)) % ring.shape[1]
    return (ring[:, window] << torch.arange(15, -1, -1, device=symbols.device)).sum(-1)
