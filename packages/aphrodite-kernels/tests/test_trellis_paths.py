"""The search for paths: compiled for any instruction set and number of bits, and its limits."""

from functools import cache

import pytest
import torch
from aphrodite_kernels import KernelError, ShapeError
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.backends.cpu.library import LEVELS
from aphrodite_kernels.backends.reference.trellis import find_paths
from aphrodite_kernels.layouts.trellis import TrellisCodebook, trellis_numbers

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)

CPU = torch.device("cpu")
NUMBERS = trellis_numbers(TrellisCodebook.MCG, CPU).float()


@cache
def expected(bits):
    targets = 0.85 * torch.randn(1, 256, generator=torch.Generator().manual_seed(int(2 * bits)))
    return targets, find_paths(targets, bits, NUMBERS)


@pytest.mark.parametrize("level", LEVELS[:3])
@pytest.mark.parametrize("bits", [*range(1, 9), 1.5, 2.5, 3.5])
def test_paths_are_those_of_the_reference(level, bits):
    targets, symbols = expected(bits)
    search = cpu.backend_on(CPU, cpu.Runtime(2, level)).find_paths
    found = search(targets.expand(6, -1).contiguous(), bits, NUMBERS)
    # Costs of 24 bits less those of an origin: two paths that are equally good may change places.
    assert torch.equal(found, found[:1].expand(6, -1))
    assert float((found[:1] != symbols).float().mean()) < 0.05


def test_a_ring_of_numbers_of_its_own_is_found():
    """Eight bits: half of a state is the symbol before, and the ring is closed."""
    generator = torch.Generator().manual_seed(3)
    symbols = torch.randint(0, 256, (3, 256), generator=generator)
    numbers = torch.randn(1 << 16, generator=generator)
    targets = numbers[symbols.roll(1, 1) << 8 | symbols]
    assert torch.equal(find_paths(targets, 8, numbers).long(), symbols)
    search = cpu.backend_on(CPU, cpu.Runtime(1)).find_paths
    assert torch.equal(search(targets, 8, numbers).long(), symbols)


def test_what_is_no_ring_is_refused():
    search = cpu.backend_on(CPU, cpu.Runtime(1)).find_paths
    with pytest.raises(ShapeError, match=r"targets must be \[any, 256\]"):
        search(torch.zeros(2, 255), 4, NUMBERS)
    with pytest.raises(KernelError, match="no two symbols of a trellis have 18 bits"):
        search(torch.zeros(1, 256), 9, NUMBERS)
