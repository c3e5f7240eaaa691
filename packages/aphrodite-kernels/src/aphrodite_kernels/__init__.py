"""Packed-weight layouts and the ops of a language model.

Ops come from a backend: a plain-torch reference, or a compiled CPU library that matches it.
"""

from aphrodite_kernels.attention import AttentionMeta, AttentionSpec, KVCache
from aphrodite_kernels.backend import Backend, backend_for, backend_names
from aphrodite_kernels.errors import (
    BackendError,
    CaptureError,
    KernelError,
    LayoutError,
    ShapeError,
)
from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType, PackedWeight, Scaled

__all__ = [
    "AttentionMeta",
    "AttentionSpec",
    "Backend",
    "BackendError",
    "CaptureError",
    "Dense",
    "GgmlBlocks",
    "GgmlType",
    "KVCache",
    "KernelError",
    "LayoutError",
    "PackedWeight",
    "Scaled",
    "ShapeError",
    "backend_for",
    "backend_names",
]
