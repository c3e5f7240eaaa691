# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
"""Inputs in the order in which the lanes of a warp multiply them.

Eight rows of a matrix lie a multiple of 128 bytes apart, so a warp that reads a little of each
waits for one bank of the cache. Here what it reads lies side by side: per eight rows and unit of
256 columns, 8 pairs of runs for 32 lanes, lane 4 g + t with columns 4 t to 4 t + 3 of both runs of
row g. The sums of the
inputs of a group, which its bias multiplies, are made on the way.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.encoding import UNIT, Encoding
from aphrodite_kernels.backends.triton.specimen import Specimen

ARRANGED = 8 * UNIT
"""Elements of a unit of eight rows."""


@triton.jit(do_not_specialize=["rows", "eights"])
def arrange_kernel(
    x,
    out,
    sums,
    rows,
    x_stride,
    eights,
    K: tl.constexpr,
    UNITS: tl.constexpr,
    RUNS: tl.constexpr,
    EIGHTS: tl.constexpr,
    PDL: tl.constexpr,
):
    """One unit of EIGHTS eights of rows; elements beyond x are zero.

    RUNS: of a group, whose sums are wanted; 0: no sums.
    """
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    unit = tl.program_id(0)
    eight = (tl.program_id(1) * EIGHTS + tl.arange(0, EIGHTS))[:, None, None]
    run = tl.arange(0, 16)[None, :, None]
    place = tl.arange(0, 128)[None, None, :]
    row = eight * 8 + place // 16
    column = unit * 256 + run * 16 + place % 16
    kept = (row < rows) & (column < K)
    part = tl.load(x + row.to(tl.int64) * x_stride + column, kept, 0.0)
    target = (eight * UNITS + unit) * 2048 + run // 2 * 256 + place // 4 * 8
    target = out + target + run % 2 * 4 + place % 4
    tl.store(target, part, eight < eights)
    if RUNS:
        GROUPS: tl.constexpr = 16 // RUNS
        parts = tl.reshape(part.to(tl.float32), (EIGHTS, GROUPS, RUNS, 8, 16))
        group = tl.arange(0, GROUPS)[None, :, None]
        place = ((eight * UNITS + unit) * GROUPS + group) * 8 + tl.arange(0, 8)[None, None, :]
        tl.store(sums + place, tl.sum(tl.sum(parts, 4), 2), eight < eights)


def arranged(
    x: Tensor, eights: int, multiple: int, encoding: Encoding, *, overlapped: bool
) -> tuple[Tensor, Tensor | None]:
    """x [T, K] as [eights, K / 256, ARRANGED], with K / 256 rounded up to a multiple.

    And, where groups have a bias, sums [eights, K / 256, groups, 8] float32.

    overlapped: the product may start while this still runs. This one does not start early itself:
    programs of products that are placed while the kernel before still holds some processors pile up
    on the others (H200, Q4_K_M at 32 rows: 5.23 ms a step, 4.87 without).
    """
    rows, columns = x.shape
    units = triton.cdiv(triton.cdiv(columns, UNIT), multiple) * multiple
    out = torch.empty(eights, units, ARRANGED, dtype=x.dtype, device=x.device)
    sums = None
    if encoding.zero is None:
        shape = (eights, units, UNIT // encoding.group, 8)
        sums = torch.empty(shape, dtype=torch.float32, device=x.device)
    together = 16 if interpreted() else 1  # the interpreter pays for programs alone
    arrange_kernel[(units, triton.cdiv(eights, together))](
        x,
        out,
        sums,
        rows,
        x.stride(0),
        eights,
        K=columns,
        UNITS=units,
        RUNS=0 if sums is None else encoding.runs,
        EIGHTS=together,
        PDL=overlapped,
        num_warps=4,
    )
    return out, sums


SPECIMENS = (
    Specimen(
        arrange_kernel,
        {"x": "*bf16", "out": "*bf16", "sums": "*fp32"}
        | dict.fromkeys(("rows", "x_stride", "eights"), "i32"),
        {"K": 4096, "UNITS": 16, "RUNS": 2, "EIGHTS": 1, "PDL": False},
        aligned=("x", "out", "sums", "x_stride"),
    ),
)
