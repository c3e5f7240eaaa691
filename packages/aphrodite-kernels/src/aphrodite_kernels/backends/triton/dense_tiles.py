# pyright: basic
"""Parts of the kernels that multiply a weight tile by tile on tensor cores.

The tile of W is the left operand and the rows of x the right one: outᵀ = W xᵀ. A tensor core works
on at least 64 rows of its left operand but on as few as 8 columns of its right one, and W has many
rows where x may have one. Where the device can (sm_90) and the rows are aligned, both are read
through tensor descriptors: whole tiles by the copy engine, zeros beyond the edge.

W in eight-bit floats is widened to the dtype of x on its way from shared memory, or multiplied as
it is by an x of eight bits. Scales of W's rows, and of x's, are factors of the finished sums; those
of blocks of K are factors of the sum over each block.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from aphrodite_kernels.backends.triton.descriptors import described
from aphrodite_kernels.backends.triton.device import reads_float8
from aphrodite_kernels.backends.triton.specimen import Specimen
from aphrodite_kernels.errors import ShapeError

_ALIGNMENT = 16
"""Bytes to which a descriptor's rows must be aligned."""
_DESCRIPTORS_FROM: tuple[int, int] = (9, 0)
_INTERPRETER: tuple[int, int] = (9, 0)
"""What it can do."""
_BARRIERS = 1024
"""Bytes of shared memory beside the tiles, at most."""
GROUP = 8
"""Tiles of rows that are worked on together."""
_CAPABILITIES = {"bf16": (80, 90), "fp8e4nv": (89, 90), "u8": (80,)}
"""Of devices on which W comes as this."""
_UNIT = 128 * 256
_UNITS = 264  # two partial tiles for each of 132 processors
_TILES = 1 << 14


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a kernel cuts a product: block_n outputs of block_t rows a tile, block_k of K a time."""

    block_t: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int
    split: int = 1
    """Programs for each tile, which share its K. 0: all tiles are shared by `resident` programs."""
    resident: int = 1
    """Programs for each processor."""

    def tiles(self, rows: int, columns: int) -> int:
        """How many tiles cover [rows, columns]."""
        return -(-rows // self.block_t) * -(-columns // self.block_n)


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where programs that share a tile meet. Kernels of one stream at a time may use it."""

    partials: Tensor
    """float32: sums over a part of K."""
    arrivals: Tensor
    """int32: programs that have written their part of each tile; zero between kernels."""
    processors: int
    descriptors: bool
    """The device reads tiles through tensor descriptors."""
    float8: bool
    """The device knows eight-bit floats. If not, kernels take their bytes (uint8)."""
    shared: int
    """Bytes of shared memory that a program can have."""

    def room(self, tiling: Tiling) -> int:
        """How many partial tiles fit."""
        return self.partials.numel() // (tiling.block_t * tiling.block_n)

    def stages(self, tiling: Tiling, x: Tensor, weight: Tensor) -> int:
        """Tiles on their way at a time: as many as asked for, or as there is room for.

        Two at most where more than four warps widen W: with three, Triton 3.6 lets sm_90 read a
        tile before it is there.
        """
        inputs, outputs = tiling.block_t * x.itemsize, tiling.block_n * weight.itemsize
        room = (self.shared - _BARRIERS) // ((inputs + outputs) * tiling.block_k)
        widened = x.dtype != weight.dtype and tiling.num_warps > 4
        return max(1, min(2 if widened else tiling.num_stages, room))

    def check(self, tiling: Tiling, *, tiles: int, pieces: int) -> None:
        """ShapeError if there is no room for so many pieces of so many tiles."""
        room = self.room(tiling)
        if pieces > room or tiles > self.arrivals.numel():
            raise ShapeError(
                f"{pieces} pieces of {tiles} tiles do not fit into a workspace of {room} pieces "
                f"and {self.arrivals.numel()} tiles; split {tiling} into fewer"
            )


def workspace_on(device: torch.device) -> Workspace:
    """A workspace on `device`, 33 MiB."""
    cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if cuda else None
    capability = torch.cuda.get_device_capability(device) if cuda else _INTERPRETER
    return Workspace(
        partials=torch.empty(_UNIT * _UNITS, dtype=torch.float32, device=device),
        arrivals=torch.zeros(_TILES, dtype=torch.int32, device=device),
        processors=properties.multi_processor_count if properties else 4,
        descriptors=capability >= _DESCRIPTORS_FROM,
        float8=reads_float8(device),
        shared=properties.shared_memory_per_block_optin if properties else 227 << 10,
    )


@dataclass(frozen=True, slots=True)
class Scales:
    """Factors of W, and of an x of eight bits; None: one."""

    weight: Tensor | None = None
    """float32: [N], or [ceil(N / height), ceil(K / depth)] for blocks."""
    x: Tensor | None = None
    """float32: [T], or [T, ceil(K / depth)] for blocks. Only if W has factors."""
    height: int = 1
    """Rows of W that share a factor."""
    depth: int = 0
    """Columns of W, and of x, that share a factor; 0: all of them."""

    def constants(self, tiling: Tiling) -> dict[str, int]:
        """What a kernel of these tiles is compiled with; ShapeError if a tile spans two blocks."""
        if self.depth % tiling.block_k:
            raise ShapeError(f"{tiling} spans blocks of {self.depth} columns, one scale each")
        count = (self.weight is not None) + (self.x is not None)
        return {"SCALED": count, "HEIGHT": self.height, "DEPTH": self.depth}


NO_SCALES = Scales()

Operand = Tensor | TensorDescriptor


def operands(
    x: Tensor, weight: Tensor, workspace: Workspace, tiling: Tiling
) -> tuple[Operand, Operand, bool]:
    """x and weight as the kernel takes them, and whether these are descriptors."""
    if not (workspace.descriptors and _describable(x) and _describable(weight)):
        return x, weight, False
    width = tiling.block_k
    return described(x, tiling.block_t, width), described(weight, tiling.block_n, width), True


def _describable(matrix: Tensor) -> bool:
    aligned = matrix.stride(0) * matrix.itemsize % _ALIGNMENT == 0
    return aligned and matrix.data_ptr() % _ALIGNMENT == 0


def tile_specimen(
    kernel: Any,
    tiling: Tiling,
    extents: tuple[str, ...],
    *,
    described: bool,
    kinds: tuple[str, str] = ("bf16", "bf16"),
    block: tuple[int, int] = (1, 0),
) -> Specimen:
    """A kernel over tiles.

    Args:
        kernel: the function.
        tiling: its tiles.
        extents: the integers it takes beside those of every product.
        described: operands are read through descriptors.
        kinds: Triton's types of x and W; `fp8e4nv` is float8_e4m3fn, `u8` its bytes.
        block: height and depth of `Scales`.
    """
    of_x, of_weight = kinds
    x_type = f"tensordesc<{of_x}[{tiling.block_t}, {tiling.block_k}]>"
    weight_type = f"tensordesc<{of_weight}[{tiling.block_n}, {tiling.block_k}]>"
    signature = {
        "x": x_type if described else f"*{of_x}",
        "weight": weight_type if described else f"*{of_weight}",
        "scale": "*fp32",
        "x_scale": "*fp32",
        "bias": "*fp32",
        "out": "*bf16",
        "partials": "*fp32",
        "arrivals": "*i32",
        **dict.fromkeys(("x_stride", "rows", "columns", "width", *extents), "i32"),
    }
    constants: dict[str, object] = {
        "BLOCK_T": tiling.block_t,
        "BLOCK_N": tiling.block_n,
        "BLOCK_K": tiling.block_k,
        "GROUP": GROUP,
        "SHARED": tiling.split != 1,
        "HAS_BIAS": True,
        "SCALED": (of_weight != "bf16") + (of_x != "bf16"),
        "HEIGHT": block[0],
        "DEPTH": block[1],
        "DESCRIBED": described,
    }
    pointers = ("scale", "x_scale", "bias", "out", "partials", "arrivals")
    return Specimen(
        kernel,
        signature,
        constants,
        tiling.num_warps,
        tiling.num_stages,
        aligned=(
            *pointers,
            "x_stride",
            "columns",
            "width",
            *(() if described else ("x", "weight")),
        ),
        capabilities=(90,) if described else _CAPABILITIES[of_weight],
    )


def check_product(x: Tensor, weight: Tensor) -> None:
    """ShapeError if x Wᵀ is not defined."""
    fits = weight.dtype in (x.dtype, torch.float8_e4m3fn, torch.uint8, torch.int8)
    if x.ndim != 2 or x.shape[1] != weight.shape[1] or not fits:
        raise ShapeError(
            f"a product of x {list(x.shape)} {x.dtype} with W {list(weight.shape)} {weight.dtype}: "
            "x must be [T, K] and W [N, K] of the same dtype or of eight bits"
        )


@triton.jit
def tile_origin(
    tile,
    rows,
    columns,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr,
):
    """First row of x and first row of W of a tile.

    Within GROUP tiles of rows, tiles that share a part of W follow each other.
    """
    row_tiles = tl.cdiv(rows, BLOCK_T)
    per_group = GROUP * tl.cdiv(columns, BLOCK_N)
    group_start = tile // per_group * GROUP
    height = min(row_tiles - group_start, GROUP)
    inside = tile % per_group
    return (group_start + inside % height) * BLOCK_T, inside // height * BLOCK_N


@triton.jit
def widened(codes, FLOAT: tl.constexpr):
    """W in the dtype of x: eight-bit floats, or their bytes; bytes 127 and 255 become 480.

    A byte's exponent and mantissa, moved to their places in a float16, are the number times 2**-8.
    Floats go by way of float32: sm_90's one instruction from float16 to bfloat16 takes as long as
    four of others, and sm_89 has none.
    """
    if codes.dtype == tl.uint8:
        wide = codes.to(tl.uint16)
        half = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        return (half.to(tl.float16, bitcast=True) * 256.0).to(FLOAT)
    return codes.to(tl.float16).to(tl.float32).to(FLOAT)


@triton.jit
def accumulate(
    x,
    weight,
    scale,
    x_scale,
    x_stride,
    rows,
    columns,
    width,
    row,
    column,
    first,
    last,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SCALED: tl.constexpr,
    HEIGHT: tl.constexpr,
    DEPTH: tl.constexpr,
    DESCRIBED: tl.constexpr,
):
    """W xᵀ [BLOCK_N, BLOCK_T] float32 over the blocks [first, last) of K, in their order.

    Scales that change along K are applied; others are left to `store_tile`.
    """
    total = tl.zeros((BLOCK_N, BLOCK_T), tl.float32)
    n = tl.minimum(column + tl.arange(0, BLOCK_N), columns - 1)
    t = tl.minimum(row + tl.arange(0, BLOCK_T), rows - 1)
    if not DESCRIBED:
        lefts = weight + n[:, None].to(tl.int64) * width
        rights = x + t[:, None].to(tl.int64) * x_stride
    for block in tl.range(first, last):
        if DESCRIBED:
            left = weight.load([column, block * BLOCK_K])
            right = x.load([row, block * BLOCK_K])
        else:
            k = block * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
            left = tl.load(lefts + k, k < width, 0.0)
            right = tl.load(rights + k, k < width, 0.0)
        if left.dtype != right.dtype:
            left = widened(left, right.dtype)
        if DEPTH == 0:
            total = tl.dot(left, right.T, total, input_precision="ieee")
        else:
            part = tl.dot(left, right.T, input_precision="ieee")
            groups = tl.cdiv(width, DEPTH)
            group = block * BLOCK_K // DEPTH
            part *= tl.load(scale + n // HEIGHT * groups + group)[:, None]
            if SCALED == 2:
                part *= tl.load(x_scale + t * groups + group)[None, :]
            total += part
    return total


@triton.jit
def store_tile(
    total,
    scale,
    x_scale,
    bias,
    out,
    row,
    column,
    rows,
    columns,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Scale, add the bias, round once and write the tile to out [rows, columns]."""
    n = column + tl.arange(0, BLOCK_N)
    t = row + tl.arange(0, BLOCK_T)
    if SCALED >= 1 and DEPTH == 0:
        total *= tl.load(scale + n, n < columns, 0.0)[:, None]
    if SCALED == 2 and DEPTH == 0:
        total *= tl.load(x_scale + t, t < rows, 0.0)[None, :]
    if HAS_BIAS:
        total += tl.load(bias + n, n < columns, 0.0)[:, None]
    result = total.to(out.dtype.element_ty).T
    places = out + t[:, None].to(tl.int64) * columns + n[None, :]
    tl.store(places, result, (t[:, None] < rows) & (n[None, :] < columns))
