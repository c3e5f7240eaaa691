"""How packed weights lie in memory: one frozen dataclass per layout."""

from aphrodite_kernels.layouts.base import PackedWeight
from aphrodite_kernels.layouts.dense import Dense
from aphrodite_kernels.layouts.ggml import GgmlBlocks, GgmlType
from aphrodite_kernels.layouts.grouped import Grouped
from aphrodite_kernels.layouts.lookup import Lookup
from aphrodite_kernels.layouts.microscaled import Microscaled
from aphrodite_kernels.layouts.scaled import Scaled

__all__ = [
    "Dense",
    "GgmlBlocks",
    "GgmlType",
    "Grouped",
    "Lookup",
    "Microscaled",
    "PackedWeight",
    "Scaled",
]
