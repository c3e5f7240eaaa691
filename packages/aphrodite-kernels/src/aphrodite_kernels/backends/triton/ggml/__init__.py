"""Weights of codes with scales, the ggml family and others: a layout of their own, products and
look-up.
"""

from aphrodite_kernels.backends.triton.ggml.coded import pack_grouped, pack_lookup, pack_microscaled
from aphrodite_kernels.backends.triton.ggml.fragments import Fragments, pack_fragments
from aphrodite_kernels.backends.triton.ggml.matmul import (
    PartWorkspace,
    ggml_matmul,
    steady_ggml_matmul,
)
from aphrodite_kernels.backends.triton.ggml.rows import embed_fragments_on

__all__ = [
    "Fragments",
    "PartWorkspace",
    "embed_fragments_on",
    "ggml_matmul",
    "pack_fragments",
    "pack_grouped",
    "pack_lookup",
    "pack_microscaled",
    "steady_ggml_matmul",
]
