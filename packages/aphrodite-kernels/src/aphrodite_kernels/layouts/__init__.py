"""How packed weights lie in memory: one frozen dataclass per layout."""

from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.dense import Dense

__all__ = ["Dense", "PackedWeight"]
