"""A continuous-batching inference engine with paged attention and every advanced sampler."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aphrodite_engine.async_engine import AsyncEngine
    from aphrodite_engine.config import EngineConfig
    from aphrodite_engine.llm import LLM, Completion, Generation
    from aphrodite_engine.sampling.params import SamplingParams

_HOME = {
    "AsyncEngine": "async_engine",
    "Completion": "llm",
    "EngineConfig": "config",
    "Generation": "llm",
    "LLM": "llm",
    "SamplingParams": "sampling.params",
}

__all__ = ["LLM", "AsyncEngine", "Completion", "EngineConfig", "Generation", "SamplingParams"]


def __getattr__(name: str) -> object:
    """Import on first use: `aphrodite --version` must not wait for torch."""
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
