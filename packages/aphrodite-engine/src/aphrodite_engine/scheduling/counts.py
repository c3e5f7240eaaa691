"""Counts since start, for metrics."""

from dataclasses import asdict, dataclass

from aphrodite_engine.outputs import EngineStats
from aphrodite_engine.scheduling.blocks import BlockPool


@dataclass(slots=True)
class Counts:
    """Fields of EngineStats that only grow."""

    steps: int = 0
    preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0

    def stats(self, running: int, waiting: int, pool: BlockPool) -> EngineStats:
        """With the gauges of now."""
        return EngineStats(
            running=running,
            waiting=waiting,
            kv_blocks=pool.capacity,
            kv_blocks_free=pool.available,
            **asdict(self),
        )
