"""What a model takes of the memory that is free: computed before anything large is read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Bytes that there are, and that are not for the KV cache: first estimated, then measured."""

    free: int
    """Before loading."""
    weights: int
    activations: int
    """Of the largest step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Bytes of one device."""

    free: int
    """Before loading."""
    utilization: float
    """Fraction of it that may be taken."""
    weights: int
    activations: int
    kv_cache: int
    kv_positions: int
    """Tokens that the KV cache holds at least."""

    @property
    def left(self) -> int:
        """What stays free."""
        return self.free - self.weights - self.activations - self.kv_cache

    def __str__(self) -> str:
        """A table for people."""
        rows = (
            ("free memory", self.free, f"{self.utilization:.0%} of it may be used"),
            ("weights", self.weights, ""),
            ("activations", self.activations, ""),
            ("KV cache", self.kv_cache, f"{self.kv_positions} tokens"),
            ("left", self.left, ""),
        )
        return "\n".join(
            f"{name:<12}{size_text(size):>11}  {note}".rstrip() for name, size, note in rows
        )


def size_text(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
