# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Counter-based random numbers. Floor: the latency of a launch."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.sampling_protocols import Uniform

_BLOCK = 128


@triton.jit(do_not_specialize=["seeds", "choices", "positions", "rows", "purpose"])
def uniform_kernel(
    seeds, choices, positions, out, rows, purpose, BLOCK: tl.constexpr, PDL: tl.constexpr
):
    """Of BLOCK rows: the upper 24 bits of the first word of Philox4x32-10, times 2^-24."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = row < rows
    seed = tl.load(seeds + row, there, 0)
    position = tl.load(positions + row, there, 0)
    choice = tl.load(choices + row, there, 0)
    nothing = tl.zeros_like(position)
    word, _, _, _ = tl.philox(seed, position, choice, nothing + purpose, nothing)
    tl.store(out + row, (word >> 8).to(tl.float32) * (2.0**-24), there)


def uniform_on(*, overlapped: bool) -> Uniform:
    """Implements protocols.Uniform."""

    def uniform(seeds: Tensor, choices: Tensor, positions: Tensor, purpose: int) -> Tensor:
        rows = len(seeds)
        out = torch.empty(rows, dtype=torch.float32, device=seeds.device)
        uniform_kernel[(triton.cdiv(rows, _BLOCK),)](
            seeds,
            choices,
            positions,
            out,
            rows,
            purpose,
            BLOCK=_BLOCK,
            PDL=overlapped,
            num_warps=4,
            launch_pdl=overlapped,
        )
        return out

    return uniform


SPECIMENS = (
    Specimen(
        uniform_kernel,
        {
            "seeds": "*i64",
            "choices": "*i32",
            "positions": "*i32",
            "out": "*fp32",
            "rows": "i32",
            "purpose": "i32",
        },
        {"BLOCK": _BLOCK, "PDL": False},
    ),
)
