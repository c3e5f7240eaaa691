"""One file per Hugging Face `model_type`; presence registers.

Each file gives `ARCHITECTURE`. Names come from checkpoints, so a name must be that of a file here
before it is imported.
"""

import importlib
import pkgutil

from aphrodite_engine.errors import ModelError
from aphrodite_engine.model import Architecture


def model_types() -> list[str]:
    """Every model type that is present."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_model(model_type: str) -> Architecture:
    """The architecture of a model type, or ModelError."""
    if model_type not in model_types():
        known = ", ".join(model_types())
        raise ModelError(f"model type {model_type!r} is not supported; supported are {known}")
    architecture: Architecture = importlib.import_module(f"{__name__}.{model_type}").ARCHITECTURE
    return architecture


def find_gguf(name: str) -> tuple[str, Architecture]:
    """The model type, and its architecture, of a GGUF `general.architecture`, or ModelError."""
    known: list[str] = []
    for model_type in model_types():
        architecture = find_model(model_type)
        if architecture.gguf is not None:
            if architecture.gguf.architecture == name:
                return model_type, architecture
            known.append(architecture.gguf.architecture)
    supported = ", ".join(known)
    raise ModelError(f"GGUF architecture {name!r} is not supported; supported are {supported}")
