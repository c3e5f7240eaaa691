"""One file per family of ggml types, each with `DECODERS`; presence registers.

A decoder takes blocks [n, block_bytes] uint8 and returns their elements [n, block_size] float32,
in the order in which they lie along K.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping

from torch import Tensor

from aphrodite_kernels.layouts.ggml.types import GgmlType

Decoder = Callable[[Tensor], Tensor]


_FAMILIES = [
    importlib.import_module(f"{__name__}.{module.name}")
    for module in pkgutil.iter_modules(__path__)
]

DECODERS: Mapping[GgmlType, Decoder] = {
    kind: decode for family in _FAMILIES for kind, decode in family.DECODERS.items()
}
"""The decoder of every type that has one."""
