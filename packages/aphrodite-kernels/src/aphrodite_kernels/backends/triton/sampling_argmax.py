# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""The likeliest token of each row: of each chunk of a row first, then of the row's chunks.

Floor: the logits over the read bandwidth; for few rows the latency of two launches.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.sampling_order import INFINITE, LOWEST, order_of
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.sampling_protocols import Argmax

_CHUNK = 4096
"""Logits that a program reads."""
_LAST = tl.constexpr(0x7FFFFFFF)
_NOTHING = tl.constexpr(-(2**63))


@triton.jit
def argmax_chunk_kernel(
    logits, best, width, chunks, stride, CHUNK: tl.constexpr, PDL: tl.constexpr
):
    """best [R, chunks] int64: the largest number's order, above how early it stands."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = chunk * CHUNK + tl.arange(0, CHUNK)
    value = tl.load(logits + row * stride + column, column < width, float("-inf")).to(tl.float32)
    order = order_of(tl.where(value == 0, 0.0, value))
    order = tl.where(value != value, _LAST, order)
    most = tl.max(order, 0)
    first = tl.min(tl.where(order == most, column, _LAST), 0)
    tl.store(best + row * chunks + chunk, (most.to(tl.int64) << 32) | (_LAST - first))


@triton.jit
def argmax_finish_kernel(best, tokens, valid, chunks, CHUNKS: tl.constexpr, PDL: tl.constexpr):
    """One row's chunks [CHUNKS or fewer]."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0)
    chunk = tl.arange(0, CHUNKS)
    most = tl.max(tl.load(best + row * chunks + chunk, chunk < chunks, _NOTHING), 0)
    order = (most >> 32).to(tl.int32)
    good = (order > LOWEST) & (order < INFINITE)
    token = _LAST - (most & _LAST).to(tl.int32)
    tl.store(tokens + row, tl.where(good, token, 0))
    tl.store(valid + row, good)


def argmax_on(*, overlapped: bool) -> Argmax:
    """Implements protocols.Argmax."""

    def argmax(logits: Tensor) -> tuple[Tensor, Tensor]:
        rows, width = logits.shape
        device = logits.device
        chunks = triton.cdiv(width, _CHUNK)
        best = torch.empty(rows * chunks, dtype=torch.int64, device=device)
        tokens = torch.empty(rows, dtype=torch.int32, device=device)
        valid = torch.empty(rows, dtype=torch.bool, device=device)
        argmax_chunk_kernel[(chunks, rows)](
            logits,
            best,
            width,
            chunks,
            logits.stride(0),
            CHUNK=_CHUNK,
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )
        argmax_finish_kernel[(rows,)](
            best,
            tokens,
            valid,
            chunks,
            CHUNKS=triton.next_power_of_2(chunks),
            PDL=overlapped,
            num_warps=1,
            launch_pdl=overlapped,
        )
        return tokens, valid

    return argmax


def _specimen(kind: str) -> Specimen:
    types = {
        "logits": kind,
        "best": "*i64",
        "width": "i32",
        "chunks": "i32",
        "stride": "i32",
    }
    aligned = ("logits", "best", "width", "stride")
    return Specimen(argmax_chunk_kernel, types, {"CHUNK": _CHUNK, "PDL": False}, aligned=aligned)


SPECIMENS = (
    _specimen("*bf16"),
    _specimen("*fp32"),
    Specimen(
        argmax_finish_kernel,
        {"best": "*i64", "tokens": "*i32", "valid": "*i1", "chunks": "i32"},
        {"CHUNKS": 32, "PDL": False},
        num_warps=1,
    ),
)
