"""Quantising the plain weights of a checkpoint while they are loaded."""

import importlib
import pkgutil
from typing import Protocol, cast

from aphrodite_kernels.layouts import Dense, PackedWeight

from aphrodite_quant import online
from aphrodite_quant.errors import FormatError


class Quantization(Protocol):
    """How plain weights become packed; a module under `online/`."""

    PER_WEIGHT: float
    """Bytes that a weight takes."""

    def quantize(self, weight: Dense) -> PackedWeight:
        """The weight, packed, on the device that it is on."""
        ...


def quantization_names() -> list[str]:
    """Every one that is present."""
    return sorted(module.name for module in pkgutil.iter_modules(online.__path__))


def find_quantization(name: str) -> Quantization:
    """The one of that name; FormatError if there is none."""
    if name not in quantization_names():
        raise FormatError(
            f"weights cannot be quantised to {name!r} while they are loaded; "
            f"present are {', '.join(quantization_names())}"
        )
    module = importlib.import_module(f"{online.__name__}.{name}")
    return cast("Quantization", module)
