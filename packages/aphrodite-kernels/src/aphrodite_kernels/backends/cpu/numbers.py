"""The floating dtypes that weights and caches are stored in."""

import torch

from aphrodite_kernels.errors import ShapeError

_NUMBERS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in csrc/cpu/numbers.h


def number_of(name: str, dtype: torch.dtype) -> int:
    """The number by which compiled code knows this dtype; `name` is whose it is."""
    if dtype not in _NUMBERS:
        known = ", ".join(str(each) for each in _NUMBERS)
        raise ShapeError(f"{name} must be of {known}, not {dtype}")
    return _NUMBERS[dtype]
