"""The searches of the CPU backend: the conformance suite sees only what they find."""

import pytest
import torch
from aphrodite_kernels.backends.cpu.keep import largest


@pytest.mark.parametrize("vocabulary", [1, 256, 300, 8193, 20001])
def test_the_largest_are_those_of_torch(vocabulary):
    generator = torch.Generator().manual_seed(vocabulary)
    for x in (
        torch.randn(5, vocabulary, generator=generator),
        torch.randint(-3, 3, (5, vocabulary), generator=generator).float(),
    ):
        for count in {1, min(40, vocabulary), min(1000, vocabulary), vocabulary}:
            assert torch.equal(largest(x, count), x.topk(count).values)
