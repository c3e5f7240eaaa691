"""What a quantisation format is, and which one a checkpoint is in.

A format is a module under `formats/` with the two functions of `Format`; presence registers.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Protocol, cast

from aphrodite_quant import formats
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.errors import FormatError
from aphrodite_quant.quantization import quantization_names
from aphrodite_quant.reader import Reader


class Format(Protocol):
    """How linear weights are packed in a checkpoint. Quirks end here: what is read is canonical."""

    def claims(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is in this format; at most one format says yes."""
        ...

    def reader(self, checkpoint: Checkpoint) -> Reader:
        """How its weights are read, once what its configuration says of the packing is checked.

        Raises:
            FormatError: it says what the format does not have.
        """
        ...


def format_names() -> list[str]:
    """Every format that is present."""
    return sorted(module.name for module in pkgutil.iter_modules(formats.__path__))


def find_format(checkpoint: Checkpoint) -> Format:
    """The one format that claims the checkpoint; FormatError if none does."""
    for name in format_names():
        # A protocol of functions: the module itself is the format.
        module = cast("Format", importlib.import_module(f"{formats.__name__}.{name}"))
        if module.claims(checkpoint):
            return module
    stated = checkpoint.quant_config or {}
    method = stated.get("quant_method", "no quant_method")
    if method == "deepspeedfp":
        raise FormatError(
            f"{checkpoint.path}: quantisation 'deepspeedfp' is not supported: it packs plain "
            "weights while they are loaded, with DeepSpeed; take quantization_config out of "
            f"config.json and choose one of {', '.join(quantization_names())}"
        )
    raise FormatError(
        f"{checkpoint.path}: quantisation {method!r} is not supported; "
        f"present are {', '.join(format_names())}"
    )


def format_name(checkpoint: Checkpoint) -> str:
    """The name of the format that claims the checkpoint; FormatError if none does."""
    kind = find_format(checkpoint)
    assert isinstance(kind, ModuleType), "a format is a file under formats/"
    return kind.__name__.rpartition(".")[2]
