# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""One token of each row by its cumulative distribution.

Chunks of a row are summed by programs of their own; one program a row then finds the chunk in which
the sum passes the number, and the token in it. The chunks are the same in any company, and so is
the token. Floor: the logits over the read bandwidth; for few rows the latency of two launches.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.sampling_sums import CHUNK, chunk_sums, chunks_of, weight_of
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.sampling_protocols import Draw


@triton.jit(do_not_specialize=["uniform", "largest", "sums"])
def draw_finish_kernel(
    logits,
    uniform,
    largest,
    sums,
    tokens,
    valid,
    width,
    chunks,
    stride,
    CHUNK: tl.constexpr,
    CHUNKS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One row, of CHUNKS chunks or fewer."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    weight, peak, good = chunks_of(row, largest, sums, chunks, CHUNKS)
    peak = tl.where(good, peak, 0.0)
    upto = tl.cumsum(weight, 0)
    target = tl.load(uniform + row) * tl.max(upto, 0)
    chosen = _first(chunk, weight, upto, target, CHUNKS)
    before = tl.sum(tl.where(chunk == chosen - 1, upto, 0.0), 0)

    place = tl.arange(0, CHUNK)
    column = chosen * CHUNK + place
    value = tl.load(logits + row * stride + column, column < width, float("-inf"))
    weight = weight_of(value, peak)
    inside = _first(place, weight, tl.cumsum(weight, 0), target - before, CHUNK)
    tl.store(tokens + row, tl.where(good, chosen * CHUNK + inside, 0))
    tl.store(valid + row, good)


@triton.jit
def _first(place, weight, upto, target, COUNT: tl.constexpr):
    """The first place of some weight up to which there is more than the target.

    The last place of some weight if rounding leaves none; 0 if all weigh nothing.
    """
    passed = tl.min(tl.where((weight > 0) & (upto > target), place, COUNT), 0)
    last = tl.max(tl.where(weight > 0, place, 0), 0)
    return tl.minimum(passed, last)


def draw_on(*, overlapped: bool) -> Draw:
    """Implements protocols.Draw."""

    def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        rows, width = logits.shape
        device, stride = logits.device, logits.stride(0)
        largest, sums = chunk_sums(logits, overlapped=overlapped)
        chunks = largest.shape[1]
        tokens = torch.empty(rows, dtype=torch.int32, device=device)
        valid = torch.empty(rows, dtype=torch.bool, device=device)
        draw_finish_kernel[(rows,)](
            logits,
            uniform,
            largest,
            sums,
            tokens,
            valid,
            width,
            chunks,
            stride,
            CHUNK=CHUNK,
            CHUNKS=triton.next_power_of_2(chunks),
            PDL=overlapped,
            num_warps=8,
            launch_pdl=overlapped,
        )
        return tokens, valid

    return draw


_SIZES = {"width": "i32", "chunks": "i32", "stride": "i32"}
_PARTS = {"largest": "*fp32", "sums": "*fp32"}

SPECIMENS = (
    Specimen(
        draw_finish_kernel,
        {
            "logits": "*fp32",
            "uniform": "*fp32",
            **_PARTS,
            "tokens": "*i32",
            "valid": "*i1",
            **_SIZES,
        },
        {"CHUNK": CHUNK, "CHUNKS": 32, "PDL": False},
        num_warps=8,
        aligned=("logits", "width", "stride"),
    ),
)
