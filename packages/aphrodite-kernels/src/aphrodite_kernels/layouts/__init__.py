"""How packed weights lie in memory: one frozen dataclass per layout."""

from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.dense import Dense
from aphrodite_kernels.layouts.ggml import GgmlBlocks, GgmlType

__all__ = ["Dense", "GgmlBlocks", "GgmlType", "PackedWeight"]
