# pyright: basic
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false
"""Products with weights whose numbers are looked up: one frame around each layout's decoder.

Few rows: a program decodes blocks of outputs by inputs, which tensor cores multiply. Programs that
share the inputs of an output leave sums, which a second kernel adds up. Many rows: the weight
is made dense in a workspace, and the vendor multiplies.

Floor: the packed bytes over the read bandwidth; of tables that no first-level cache holds, a sector
of the second-level cache for every entry.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aphrodite_kernels.backends.triton.device import interpreted
from aphrodite_kernels.backends.triton.ggml.matmul import PART, PartWorkspace
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError
from aphrodite_kernels.layouts import PackedWeight
from aphrodite_kernels.layouts.sourced import Sourced
from aphrodite_kernels.protocols import MatMul

FEW = 32
"""Rows up to which numbers are decoded on their way to the tensor cores."""

PROCESSORS = 132
"""Of an H100, and of an H200."""


@dataclass(frozen=True, slots=True)
class Blocking:
    """Outputs and inputs that a program decodes at a time."""

    outputs: int = 64
    inputs: int = 128
    num_warps: int = 4
    num_stages: int = 1
    """More copy what is looked up to shared memory, number by number: five times as long."""
    resident: int = 4
    """Programs for each processor, that share the inputs."""


BLOCKING = Blocking()
_INTERPRETED = Blocking(256, 512)
"""The interpreter pays for programs alone."""


@dataclass(frozen=True, eq=False)
class Looked(Sourced):
    """A weight that a decoder reads: rectangles of `height` outputs by `width` inputs.

    A decoder is a function under `triton.jit` of (parts, v, a, SPEC) to the numbers, in float32, of
    the rectangles v [V] along N by a [A] along K: [V * padded, A * width], where `padded` is the
    power of two from the height on. What lies beyond the weight is any finite number.
    """

    parts: tuple[Tensor | int, ...]
    """What the decoder reads."""
    order: Tensor | None
    """[N] int64: of each output, its place among those that are decoded; None: in order."""

    @property
    @abstractmethod
    def decoder(self) -> Any:
        """The function."""

    @property
    @abstractmethod
    def spec(self) -> Any:
        """What it is compiled for; has `height`, `padded` and `width`."""

    def few_rows(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """x [T, K] Wᵀ (+ bias), T up to FEW."""
        return few_rows(x, self, bias)


@triton.jit(do_not_specialize=["rows", "share", "blocks"])
def few_rows_kernel(
    x,
    parts,
    sums,
    x_stride,
    rows,
    outputs,
    inputs,
    blocks,
    share,
    DECODE: tl.constexpr,
    SPEC: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_A: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sums[s, t, n]: the part of x Wᵀ of the s-th `share` of all blocks of inputs."""
    v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    t = tl.program_id(2) * BLOCK_T + tl.arange(0, BLOCK_T)
    BLOCK_N: tl.constexpr = BLOCK_V * SPEC.padded
    BLOCK_K: tl.constexpr = BLOCK_A * SPEC.width
    total = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
    first = tl.program_id(1) * share
    row = x + t.to(tl.int64)[None, :] * x_stride
    for block in range(first, min(first + share, blocks)):
        number = DECODE(parts, v, block * BLOCK_A + tl.arange(0, BLOCK_A), SPEC)
        k = block * BLOCK_K + tl.arange(0, BLOCK_K)
        there = (k < inputs)[:, None] & (t < rows)[None, :]
        operand = tl.load(row + k[:, None], there, 0.0)
        weight = number.to(x.dtype.element_ty)
        total = tl.dot(weight, operand, total, input_precision=PRECISION)
    place = tl.arange(0, BLOCK_N)
    n = tl.program_id(0) * (BLOCK_V * SPEC.height) + place // SPEC.padded * SPEC.height
    n += place % SPEC.padded
    kept = (place % SPEC.padded < SPEC.height) & (n < outputs)
    to = sums + (tl.program_id(1).to(tl.int64) * rows + t)[None, :] * outputs + n[:, None]
    tl.store(to, total, kept[:, None] & (t < rows)[None, :])


@triton.jit(do_not_specialize=["rows", "shares"])
def add_shares_kernel(
    sums, bias, order, out, rows, outputs, shares, HAS_BIAS: tl.constexpr, ORDERED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """out[t, n] = the sums of its shares, and the bias."""
    t = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = n < outputs
    place = tl.load(order + n, there, 0) if ORDERED else n
    total = tl.zeros((BLOCK,), tl.float32)
    share = sums + t * outputs + place
    for _ in range(shares):
        total += tl.load(share, there, 0.0)
        share += rows.to(tl.int64) * outputs
    if HAS_BIAS:
        total += tl.load(bias + n, there, 0.0)
    tl.store(out + t * outputs + n, total.to(out.dtype.element_ty), there)


@triton.jit(do_not_specialize=["first", "outputs"])
def dense_kernel(
    parts,
    out,
    first,
    outputs,
    inputs,
    DECODE: tl.constexpr,
    SPEC: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_A: tl.constexpr,
):
    """out [outputs, K]: the weight from rectangle `first` on."""
    v = tl.program_id(0) * BLOCK_V + tl.arange(0, BLOCK_V)
    a = tl.program_id(1) * BLOCK_A + tl.arange(0, BLOCK_A)
    number = DECODE(parts, first + v, a, SPEC)
    place = tl.arange(0, BLOCK_V * SPEC.padded)
    n = tl.program_id(0) * (BLOCK_V * SPEC.height) + place // SPEC.padded * SPEC.height
    n += place % SPEC.padded
    k = tl.program_id(1) * (BLOCK_A * SPEC.width) + tl.arange(0, BLOCK_A * SPEC.width)
    kept = (place % SPEC.padded < SPEC.height) & (n < outputs)
    to = out + n.to(tl.int64)[:, None] * inputs + k[None, :]
    tl.store(to, number.to(out.dtype.element_ty), kept[:, None] & (k < inputs)[None, :])


def looked_matmul(workspace: PartWorkspace) -> MatMul:
    """The fastest products."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        looked = _checked(x, weight)
        if len(x) <= FEW:
            return looked.few_rows(x, bias)
        return by_dense_parts(x, looked, bias, workspace)

    return matmul


def steady_looked_matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """Products that round a row alike in any company: one order along K for every row count."""
    return few_rows(x, _checked(x, weight), bias)


def few_rows(
    x: Tensor, weight: Looked, bias: Tensor | None, blocking: Blocking | None = None
) -> Tensor:
    """x [T, K] Wᵀ (+ bias), of which W is decoded on its way."""
    (rows, inputs), outputs, spec = x.shape, weight.out_features, weight.spec
    blocking = blocking or (_INTERPRETED if interpreted() else BLOCKING)
    block_v, block_a = _cut(blocking, spec)
    tiles, blocks = -(-outputs // (block_v * spec.height)), -(-inputs // (block_a * spec.width))
    share = -(-blocks * tiles // (PROCESSORS * blocking.resident))
    shares = -(-blocks // share)
    block_t = 16 if rows <= 16 else 32
    sums = torch.empty((shares, rows, outputs), dtype=torch.float32, device=x.device)
    few_rows_kernel[(tiles, shares, triton.cdiv(rows, block_t))](
        x,
        weight.parts,
        sums,
        x.stride(0),
        rows,
        outputs,
        inputs,
        blocks,
        share,
        DECODE=weight.decoder,
        SPEC=spec,
        BLOCK_T=block_t,
        BLOCK_V=block_v,
        BLOCK_A=block_a,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=blocking.num_warps,
        num_stages=blocking.num_stages,
    )
    return summed(sums, bias, weight.order, x.dtype)


def summed(sums: Tensor, bias: Tensor | None, order: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The sums [shares, T, N] of all shares (+ bias) [T, N]; order: the place of each output."""
    shares, rows, outputs = sums.shape
    out = torch.empty((rows, outputs), dtype=dtype, device=sums.device)
    block = 1024
    add_shares_kernel[(rows, triton.cdiv(outputs, block))](
        sums,
        bias,
        order,
        out,
        rows,
        outputs,
        shares,
        HAS_BIAS=bias is not None,
        ORDERED=order is not None,
        BLOCK=block,
        num_warps=4,
    )
    return out


def by_dense_parts(
    x: Tensor, weight: Looked, bias: Tensor | None, workspace: PartWorkspace, part: int = PART
) -> Tensor:
    """x [T, K] Wᵀ (+ bias), of which W is made dense `part` elements at a time."""
    outputs, inputs, height = weight.out_features, weight.in_features, weight.spec.height
    out = torch.empty(len(x), outputs, dtype=x.dtype, device=x.device)
    step = max(1, part // (inputs * height)) * height
    for start in range(0, outputs, step):
        stop = min(start + step, outputs)
        dense = workspace.take(stop - start, inputs, x.dtype)
        make_dense(weight, start // height, dense)
        torch.mm(x, dense.T, out=out[:, start:stop])
    if weight.order is not None:
        out = out.index_select(1, weight.order)
    return out if bias is None else out.add_(bias)


def make_dense(weight: Looked, first: int, out: Tensor, blocking: Blocking | None = None) -> None:
    """Outputs from rectangle `first` on, in the decoder's order, into out [outputs, K]."""
    spec, (outputs, inputs) = weight.spec, out.shape
    blocking = blocking or (_INTERPRETED if interpreted() else BLOCKING)
    block_v, block_a = _cut(blocking, spec)
    grid = (-(-outputs // (block_v * spec.height)), -(-inputs // (block_a * spec.width)))
    dense_kernel[grid](
        weight.parts,
        out,
        first,
        outputs,
        inputs,
        DECODE=weight.decoder,
        SPEC=spec,
        BLOCK_V=block_v,
        BLOCK_A=block_a,
        num_warps=blocking.num_warps,
    )


def _cut(blocking: Blocking, spec: Any) -> tuple[int, int]:
    """Rectangles of a block along N and K."""
    return max(1, blocking.outputs // spec.padded), max(1, blocking.inputs // spec.width)


def _checked(x: Tensor, weight: PackedWeight) -> Looked:
    assert isinstance(weight, Looked), f"bound to {type(weight).__name__}"
    if x.ndim != 2 or x.shape[1] != weight.in_features or x.stride(1) != 1:
        raise ShapeError(
            f"rows of {weight.in_features} contiguous elements are needed, x is {tuple(x.shape)} "
            f"with strides {x.stride()}"
        )
    return weight


def looked_specimens(decoder: Any, spec: Any, types: tuple[str, ...]) -> tuple[Specimen, ...]:
    """Both kernels around a decoder; types: of what it reads."""
    block_v, block_a = _cut(BLOCKING, spec)
    constants = {"DECODE": decoder, "SPEC": spec, "BLOCK_V": block_v, "BLOCK_A": block_a}
    read = tuple(f"parts.{i}" for i in range(len(types)))
    sizes = dict.fromkeys(("rows", "outputs", "inputs", "blocks", "share", "x_stride"), "i32")
    few = {"x": "*bf16", "parts": types, "sums": "*fp32", **sizes}
    dense = {"parts": types, "out": "*bf16", **dict.fromkeys(("first", "outputs", "inputs"), "i32")}
    return (
        *(
            Specimen(
                few_rows_kernel,
                few,
                {**constants, "BLOCK_T": block_t, "PRECISION": "tf32"},
                BLOCKING.num_warps,
                BLOCKING.num_stages,
                aligned=("x", "sums", "x_stride", "outputs", "inputs", *read),
            )
            for block_t in (16, 32)
        ),
        Specimen(
            dense_kernel, dense, constants, BLOCKING.num_warps, aligned=("out", "inputs", *read)
        ),
    )


SPECIMENS = (
    Specimen(
        add_shares_kernel,
        {
            **dict.fromkeys(("sums", "bias"), "*fp32"),
            "order": "*i64",
            "out": "*bf16",
            **dict.fromkeys(("rows", "outputs", "shares"), "i32"),
        },
        {"HAS_BIAS": True, "ORDERED": True, "BLOCK": 1024},
        aligned=("sums", "bias", "order", "out", "outputs"),
    ),
)
