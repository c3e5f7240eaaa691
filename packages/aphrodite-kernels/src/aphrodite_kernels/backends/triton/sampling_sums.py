# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Sums of the exponentials of each row, chunk by chunk, and their logarithm.

Chunks of a row are summed by programs of their own, the same in any company. Floor: the logits over
the read bandwidth; for few rows the latency of two launches.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.sampling_protocols import LogSumExp

CHUNK = 4096
"""Logits that a program reads."""
INFINITY = tl.constexpr(float("inf"))


@triton.jit
def weight_of(value, most):
    """exp(value - most), at most 1 even where that says nothing."""
    return tl.exp(tl.minimum(value - most, 0.0))


@triton.jit(do_not_specialize=["largest", "sums"])
def sums_kernel(
    logits, largest, sums, width, chunks, stride, CHUNK: tl.constexpr, PDL: tl.constexpr
):
    """largest [R, chunks]: infinity if one is NaN; sums [R, chunks] of exp(logits - largest)."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = chunk * CHUNK + tl.arange(0, CHUNK)
    value = tl.load(logits + row * stride + column, column < width, float("-inf"))
    most = tl.max(tl.where(value != value, INFINITY, value), 0)
    finite = tl.abs(most) < INFINITY
    total = tl.sum(weight_of(value, tl.where(finite, most, 0.0)), 0)
    tl.store(largest + row * chunks + chunk, most)
    tl.store(sums + row * chunks + chunk, tl.where(finite, total, 0.0))


@triton.jit
def chunks_of(row, largest, sums, chunks, CHUNKS: tl.constexpr):
    """Weight of each chunk relative to the row's largest number; that; and whether it is finite."""
    chunk = tl.arange(0, CHUNKS)
    most = tl.load(largest + row * chunks + chunk, chunk < chunks, float("-inf"))
    peak = tl.max(most, 0)
    good = tl.abs(peak) < INFINITY
    base = tl.where(good, peak, 0.0)
    weight = tl.load(sums + row * chunks + chunk, chunk < chunks, 0.0) * weight_of(most, base)
    return weight, peak, good


@triton.jit(do_not_specialize=["largest", "sums"])
def logsumexp_kernel(largest, sums, out, chunks, CHUNKS: tl.constexpr, PDL: tl.constexpr):
    """One row, of CHUNKS chunks or fewer. Its largest number, if that is not finite."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    weight, peak, good = chunks_of(row, largest, sums, chunks, CHUNKS)
    total = tl.where(good, tl.sum(weight, 0), 1.0)
    tl.store(out + row, peak + tl.log(total))


def chunk_sums(logits: Tensor, *, overlapped: bool) -> tuple[Tensor, Tensor]:
    """The largest logit of each chunk [R, chunks], and the sum of exponentials relative to it."""
    rows, width = logits.shape
    chunks = triton.cdiv(width, CHUNK)
    shape = (2, rows, chunks)
    largest, sums = torch.empty(shape, dtype=torch.float32, device=logits.device).unbind()
    sums_kernel[(chunks, rows)](
        logits,
        largest,
        sums,
        width,
        chunks,
        logits.stride(0),
        CHUNK=CHUNK,
        PDL=overlapped,
        num_warps=4,
        launch_pdl=overlapped,
    )
    return largest, sums


def logsumexp_on(*, overlapped: bool) -> LogSumExp:
    """Implements protocols.LogSumExp."""

    def logsumexp(logits: Tensor) -> Tensor:
        largest, sums = chunk_sums(logits, overlapped=overlapped)
        rows, chunks = largest.shape
        out = torch.empty(rows, dtype=torch.float32, device=logits.device)
        logsumexp_kernel[(rows,)](
            largest,
            sums,
            out,
            chunks,
            CHUNKS=triton.next_power_of_2(chunks),
            PDL=overlapped,
            num_warps=1,
            launch_pdl=overlapped,
        )
        return out

    return logsumexp


SPECIMENS = (
    Specimen(
        sums_kernel,
        {
            "logits": "*fp32",
            **dict.fromkeys(("largest", "sums"), "*fp32"),
            **dict.fromkeys(("width", "chunks", "stride"), "i32"),
        },
        {"CHUNK": CHUNK, "PDL": False},
        aligned=("logits", "width", "stride"),
    ),
    Specimen(
        logsumexp_kernel,
        {**dict.fromkeys(("largest", "sums", "out"), "*fp32"), "chunks": "i32"},
        {"CHUNKS": 32, "PDL": False},
        num_warps=1,
    ),
)
