# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Removing the tokens below a threshold of each row. Floor: the logits in and out."""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import Keep

_CHUNK = 4096
"""Logits that a program treats."""


@triton.jit(do_not_specialize=["threshold", "threshold_stride"])
def keep_kernel(
    logits,
    threshold,
    width,
    stride,
    threshold_stride,
    CHUNK: tl.constexpr,
    PDL: tl.constexpr,
):
    """In place: a chunk of logits, those below the row's threshold."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    there = column < width
    place = logits + row * stride + column
    value = tl.load(place, there, 0.0)
    least = tl.load(threshold + row * threshold_stride)
    tl.store(place, tl.where(value < least, float("-inf"), value), there)


def keep_on(*, overlapped: bool) -> Keep:
    """Implements protocols.Keep."""

    def keep(logits: Tensor, threshold: Tensor) -> None:
        rows, width = logits.shape
        keep_kernel[(triton.cdiv(width, _CHUNK), rows)](
            logits,
            threshold,
            width,
            logits.stride(0),
            threshold.stride(0),
            CHUNK=_CHUNK,
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )

    return keep


SPECIMENS = (
    Specimen(
        keep_kernel,
        {
            "logits": "*fp32",
            "threshold": "*fp32",
            "width": "i32",
            "stride": "i32",
            "threshold_stride": "i32",
        },
        {"CHUNK": _CHUNK, "PDL": False},
        aligned=("logits", "width", "stride"),
    ),
)
