"""Trellis-coded weights (EXL3): a layout of their own, and products."""

from aphrodite_kernels.backends.triton.trellis.fields import TrellisFields, pack_trellis
from aphrodite_kernels.backends.triton.trellis.matmul import (
    steady_trellis_matmul,
    trellis_matmul,
)

__all__ = ["TrellisFields", "pack_trellis", "steady_trellis_matmul", "trellis_matmul"]
