# pyright: basic
"""Kernels of which a program has a whole row of logits: how they are launched and compiled."""

from typing import Any

from torch import Tensor

from aphrodite_kernels.backends.triton.specimen import Specimen

WARPS = 16


def change_rows(
    kernel: Any, logits: Tensor, column: Tensor, *, overlapped: bool, **constants: object
) -> None:
    """Change logits [R, V] in place, each row by its number of a column [R, 1]."""
    rows, width = logits.shape
    kernel[(rows,)](
        logits,
        column,
        width,
        logits.stride(0),
        column.stride(0),
        PDL=overlapped,
        num_warps=WARPS,
        launch_pdl=overlapped,
        **constants,
    )


def row_specimen(kernel: Any, others: dict[str, str], **constants: object) -> Specimen:
    """Of such a kernel; others: types of its arguments besides the logits and their extents."""
    types = {"logits": "*fp32", "width": "i32", "stride": "i32", **others}
    aligned = ("logits", "width", "stride")
    return Specimen(kernel, types, {**constants, "PDL": False}, WARPS, aligned=aligned)
