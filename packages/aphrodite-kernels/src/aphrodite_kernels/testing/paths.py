"""Cases of the search for paths through a trellis."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from aphrodite_kernels.layouts.trellis import TrellisCodebook, trellis_numbers
from aphrodite_kernels.testing.case import Case, Draw


def path_cases() -> Iterator[Case]:
    """Few: the reference takes its time."""
    for rings, bits in ((1, 4), (5, 8), (2, 3.5)):
        yield Case(f"find_paths-{rings}x{bits}", partial(check_paths, rings=rings, bits=bits))


def check_paths(draw: Draw, rings: int, bits: float) -> None:
    """As near to the targets as the reference's, which may be others of equal cost."""
    targets = 0.85 * draw.float32(rings, 256)
    numbers = trellis_numbers(TrellisCodebook.MUL1, targets.device).float()
    expected = draw.reference().find_paths(targets, bits, numbers)
    actual = draw.backend.find_paths(targets, bits, numbers)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == torch.uint8, f"dtype {actual.dtype}, expected uint8"
    for first, most in enumerate((int(bits), int(2 * bits) - int(bits))):
        highest = int(actual[:, first::2].max())
        assert highest < 1 << most, f"a symbol of {most} bits is {highest}"
    found, wanted = (
        (numbers[_states(symbols, bits)] - targets).square().sum(1)
        for symbols in (actual, expected)
    )
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=0)


def _states(symbols: Tensor, bits: float) -> Tensor:
    """The last 16 bits of the ring up to each symbol."""
    of_pair, of_second = int(2 * bits), int(2 * bits) - int(bits)
    pairs = symbols[:, ::2].long() << of_second | symbols[:, 1::2]
    places = torch.arange(of_pair - 1, -1, -1, device=symbols.device)
    ring = (pairs[..., None] >> places & 1).flatten(1)
    ends = torch.arange(1, 257, device=symbols.device)[:, None] * of_pair // 2
    window = (ends - torch.arange(16, 0, -1, device=symbols.device)) % ring.shape[1]
    return (ring[:, window] << torch.arange(15, -1, -1, device=symbols.device)).sum(-1)
