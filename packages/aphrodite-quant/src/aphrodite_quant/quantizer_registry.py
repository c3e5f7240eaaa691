"""Which quantisers there are: one file each under `quantizers/`, presence registers."""

import importlib
import pkgutil
from collections.abc import Collection
from typing import Protocol, cast

from aphrodite_quant import quantizers
from aphrodite_quant.errors import FormatError
from aphrodite_quant.quantizer import Options, Quantizer


class QuantizerFile(Protocol):
    """A module under `quantizers/`."""

    def quantizer(self, options: Options, shapes: Collection[tuple[int, int]]) -> Quantizer:
        """The quantiser for weights of these shapes [N, K].

        Raises:
            FormatError: an option or a shape is not one that the format has.
        """
        ...


def quantizer_names() -> list[str]:
    """Every format that can be written."""
    return sorted(module.name for module in pkgutil.iter_modules(quantizers.__path__))


def find_quantizer(name: str) -> QuantizerFile:
    """The one of that name; FormatError if there is none."""
    if name not in quantizer_names():
        raise FormatError(
            f"weights cannot be written as {name!r}; present are {', '.join(quantizer_names())}, "
            "and gguf:TYPE for a GGUF file"
        )
    return cast("QuantizerFile", importlib.import_module(f"{quantizers.__name__}.{name}"))
