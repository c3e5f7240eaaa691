"""One case of the suite, its random inputs, and how answers are compared."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aphrodite_kernels.backend import Backend
from aphrodite_kernels.backends import reference

TOLERANCES: Mapping[torch.dtype, float] = {
    torch.float32: 1e-4,
    torch.float16: 4e-3,
    torch.bfloat16: 2e-2,
}
"""Relative and absolute difference allowed to a single element."""

PACKED_PRODUCT_ERROR = 2e-2
"""Relative error allowed to a row of a packed product: activations may be rounded to eight bits."""


@dataclass(frozen=True, slots=True)
class Draw:
    """Random inputs for one case, equal on every run, on the backend's device."""

    backend: Backend
    generator: torch.Generator

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers in the backend's dtype."""
        return self.float32(*shape).to(self.backend.dtype)

    def float32(self, *shape: int) -> Tensor:
        """Normal numbers in float32."""
        return torch.randn(shape, generator=self.generator).to(self.backend.device)

    def strided(self, rows: int, *shape: int) -> Tensor:
        """Normal numbers whose rows are slices of wider rows."""
        width = torch.Size(shape).numel()
        return self.normal(rows, width + 24)[:, 8 : 8 + width].view(rows, *shape)

    def integers(self, low: int, high: int, count: int) -> Tensor:
        """Int64 numbers from low to below high."""
        numbers = torch.randint(low, high, (count,), generator=self.generator)
        return numbers.to(self.backend.device)

    def permutation(self, count: int) -> Tensor:
        """The numbers below count, int32, in random order."""
        return torch.randperm(count, generator=self.generator).int().to(self.backend.device)

    def reference(self) -> Backend:
        """The reference on the same device and in the same dtype."""
        return reference.create(self.backend.device, threads=None, dtype=self.backend.dtype)


@dataclass(frozen=True, slots=True)
class Case:
    """One op on one kind of input."""

    name: str
    run: Callable[[Draw], None]

    def check(self, backend: Backend) -> None:
        """AssertionError if the backend's answer is not the reference's."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        self.run(Draw(backend, generator))

    def __str__(self) -> str:
        return self.name


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Element by element, with the tolerance of the expected dtype."""
    limit = TOLERANCES[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)


def assert_rows_close(actual: Tensor, expected: Tensor, limit: float) -> None:
    """Row by row: the norm of the difference relative to that of the expected row."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    difference = (actual.float() - expected.float()).square().sum(-1).sqrt()
    size = expected.float().square().sum(-1).sqrt().clamp_min(1e-9)
    error = float((difference / size).max())
    assert error <= limit, f"relative error {error:.2e} of a row, allowed is {limit:.0e}"
