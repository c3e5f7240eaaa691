"""Blocks of the ggml family: the types, the packed weight, and one decoder file per family."""

from aphrodite_kernels.layouts.ggml.blocks import GgmlBlocks
from aphrodite_kernels.layouts.ggml.types import GgmlType

__all__ = ["GgmlBlocks", "GgmlType"]
