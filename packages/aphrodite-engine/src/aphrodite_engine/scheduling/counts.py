"""Counts since start, for metrics."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Fields of EngineStats that only grow."""

    steps: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
