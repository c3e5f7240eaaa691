# pyright: basic
# pyright: reportGeneralTypeIssues=false, reportCallIssue=false, reportArgumentType=false
"""Rotary position embedding: a program turns every head of one token, of q and of k."""

import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import cuda

from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.protocols import Rotate


@triton.jit
def _turn(place, there, cosine, sine, HALF: tl.constexpr):
    first = tl.load(place, there, 0.0).to(tl.float32)
    second = tl.load(place + HALF, there, 0.0).to(tl.float32)
    kind = place.dtype.element_ty
    tl.store(place, (first * cosine - second * sine).to(kind), there)
    tl.store(place + HALF, (second * cosine + first * sine).to(kind), there)


@triton.jit(do_not_specialize=["positions"])
def rotate_kernel(
    q,
    k,
    positions,
    table,
    q_stride,
    q_head_stride,
    k_stride,
    k_head_stride,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_KV_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    PDL: tl.constexpr,
):
    """In place: q [T, HEADS, D], k [T, KV_HEADS, D]; table [positions, 2, HALF]."""
    if PDL:
        cuda.gdc_launch_dependents()
        cuda.gdc_wait()
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)[None, :]
    angles = table + tl.load(positions + token).to(tl.int64) * (2 * HALF) + column
    cosine = tl.load(angles, column < HALF, 0.0)
    sine = tl.load(angles + HALF, column < HALF, 0.0)
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    place = q + token * q_stride + head * q_head_stride + column
    _turn(place, (head < HEADS) & (column < HALF), cosine, sine, HALF)
    pair = tl.arange(0, BLOCK_KV_HEADS)[:, None]
    place = k + token * k_stride + pair * k_head_stride + column
    _turn(place, (pair < KV_HEADS) & (column < HALF), cosine, sine, HALF)


def rotate_on(*, overlapped: bool) -> Rotate:
    """Implements protocols.Rotate."""

    def rotate(q: Tensor, k: Tensor, positions: Tensor, table: Tensor) -> None:
        half = table.shape[-1]
        heads, pairs = q.shape[1], k.shape[1]
        rotate_kernel[(len(q),)](
            q,
            k,
            positions,
            table,
            q.stride(0),
            q.stride(1),
            k.stride(0),
            k.stride(1),
            HEADS=heads,
            KV_HEADS=pairs,
            HALF=half,
            BLOCK_HEADS=triton.next_power_of_2(heads),
            BLOCK_KV_HEADS=triton.next_power_of_2(pairs),
            BLOCK=triton.next_power_of_2(half),
            PDL=overlapped,
            num_warps=8,
            launch_pdl=overlapped,
        )

    return rotate


def _specimen(heads: int, pairs: int, half: int) -> Specimen:
    types = {
        "q": "*bf16",
        "k": "*bf16",
        "positions": "*i32",
        "table": "*fp32",
        "q_stride": "i32",
        "q_head_stride": "i32",
        "k_stride": "i32",
        "k_head_stride": "i32",
    }
    constants: dict[str, object] = {
        "HEADS": heads,
        "KV_HEADS": pairs,
        "HALF": half,
        "BLOCK_HEADS": triton.next_power_of_2(heads),
        "BLOCK_KV_HEADS": triton.next_power_of_2(pairs),
        "BLOCK": triton.next_power_of_2(half),
        "PDL": False,
    }
    aligned = ("q", "k", "table", "q_stride", "q_head_stride", "k_stride", "k_head_stride")
    return Specimen(rotate_kernel, types, constants, 8, aligned=aligned)


SPECIMENS = (_specimen(32, 8, 64), _specimen(64, 8, 64), _specimen(9, 3, 32))
