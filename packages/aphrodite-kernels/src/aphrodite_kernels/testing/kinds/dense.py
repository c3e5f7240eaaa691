"""Plain matrices."""

from functools import partial

import torch

from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.testing.kinds import WeightKind


def _random(rows: int, columns: int, generator: torch.Generator, dtype: torch.dtype) -> Dense:
    return Dense((torch.randn(rows, columns, generator=generator) / 8).to(dtype))


KINDS = tuple(
    WeightKind(
        str(dtype).removeprefix("torch."),
        partial(_random, dtype=dtype),
        company=dtype == torch.bfloat16,
    )
    for dtype in (torch.float32, torch.float16, torch.bfloat16)
)
