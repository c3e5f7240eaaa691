"""Encoders of the ggml types: one file per family, each with `ENCODERS`; presence registers.

An encoder takes blocks [n, block_size] float32 and how much each number counts, of the same shape
or None, and returns blocks [n, block_bytes] uint8. Without importance the types that llama.cpp
rounds without a search are those that gguf-py writes, bit for bit; all others are searched for
the least weighted squared error.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping

from aphrodite_kernels.layouts import GgmlType
from torch import Tensor

Encoder = Callable[[Tensor, Tensor | None], Tensor]


def _present() -> Mapping[GgmlType, Encoder]:
    found: dict[GgmlType, Encoder] = {}
    for module in pkgutil.iter_modules(__path__):
        named = importlib.import_module(f"{__name__}.{module.name}")
        found |= named.ENCODERS
    return found


ENCODERS = _present()
"""The encoder of every type that has one."""
