"""The dtypes that weights and caches are stored in."""

from collections.abc import Mapping

import torch

from aphrodite_kernels.errors import ShapeError

_NUMBERS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # as in csrc/cpu/numbers.h
_CACHE_NUMBERS = _NUMBERS | {  # as in csrc/cpu/cache_numbers.h
    torch.int8: 3,
    torch.float8_e4m3fn: 4,
    torch.float8_e5m2: 5,
    torch.uint8: 6,
}


def number_of(name: str, dtype: torch.dtype) -> int:
    """The number by which compiled code knows the dtype of a weight; `name` is whose it is."""
    return _look_up(_NUMBERS, name, dtype)


def cache_number_of(dtype: torch.dtype) -> int:
    """The number by which compiled code knows the dtype of a KV cache."""
    return _look_up(_CACHE_NUMBERS, "the KV cache", dtype)


def _look_up(numbers: Mapping[torch.dtype, int], name: str, dtype: torch.dtype) -> int:
    if dtype not in numbers:
        known = ", ".join(str(each) for each in numbers)
        raise ShapeError(f"{name} must be of {known}, not {dtype}")
    return numbers[dtype]
