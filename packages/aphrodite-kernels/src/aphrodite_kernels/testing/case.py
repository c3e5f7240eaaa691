"""One case of the suite, its random inputs, and how answers are compared."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

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
    spare: bool = False
    """What it combines, others combine with something else, so an interpreter may leave it out."""

    def check(self, backend: Backend) -> None:
        """AssertionError if the backend's answer is not the reference's."""
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
        self.run(Draw(backend, generator))

    def __str__(self) -> str:
        return self.name


class Rounding(Enum):
    """How activations may have been rounded before a product."""

    NONE = "to nothing but the dtype they have"
    STEPS = "to 127 steps of their row's largest: by half a step at most"
    FLOATS = "to float8_e4m3fn: by 2**-4 of themselves at most, 3.6e-2 root mean square"


def assert_close(actual: Tensor, expected: Tensor) -> None:
    """Element by element, with the tolerance of the expected dtype."""
    limit = TOLERANCES[expected.dtype]
    torch.testing.assert_close(actual, expected, rtol=limit, atol=limit)


def assert_product_close(
    actual: Tensor, expected: Tensor, x: Tensor, weight: Tensor, rounding: Rounding
) -> None:
    """Compare products x [T, K] by weight [N, K], whose errors grow with the factors' sizes.

    rounding: of activations, that is allowed. Each errs by a uniform number; six standard
    deviations of their sum are let pass, whatever cancels in the sum itself.
    """
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    assert actual.dtype == expected.dtype, f"dtype {actual.dtype}, expected {expected.dtype}"
    rows = weight.square().sum(1).sqrt()  # [N]
    typical = x.float().square().mean(1).sqrt()[:, None] * rows  # [T, N]
    allowed = TOLERANCES[expected.dtype] * (typical + expected.float().abs())
    if rounding == Rounding.STEPS:
        step = x.float().abs().amax(1, keepdim=True) / 127
        allowed += 6 * step / 12**0.5 * rows
    if rounding == Rounding.FLOATS:
        allowed += 6 * 2**-4 / 3**0.5 * typical
    excess = float(
        ((actual.float() - expected.float()).abs() / allowed).nan_to_num(torch.inf).max()
    )
    assert excess <= 1, f"an element is off by {excess:.2f} times what rounding explains"
