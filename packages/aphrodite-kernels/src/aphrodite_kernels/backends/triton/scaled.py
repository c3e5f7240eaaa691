# pyright: basic
# pyright: reportPrivateImportUsage=false
"""Products with weights of eight bits: for each number of rows, what measures fastest.

One row takes a program for each few rows of W, some rows tiles whose W is widened on its way to the
tensor cores; neither rounds activations. Beyond, activations become eight-bit floats, too, each row
(or each part of a row, where W's scales change along it) with a scale of its own, and tensor cores
multiply at twice the rate: the vendor's product, or tiles where that one does not do. Eight-bit
integers, and floats on devices that do not know them, are widened whatever the number of rows.
"""

import torch
from torch import Tensor

from aphrodite_kernels.backends.triton.dense import first_of, vendor
from aphrodite_kernels.backends.triton.dense_stream import stream
from aphrodite_kernels.backends.triton.dense_tiles import Scales, Tiling, Workspace, check_product
from aphrodite_kernels.backends.triton.dense_vector import WIDEST, Cut, vector
from aphrodite_kernels.backends.triton.scaled_rows import round_rows
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import PackedWeight, Scaled
from aphrodite_kernels.protocols import MatMul, RoundedMatMul
from aphrodite_kernels.rounded import Rounded

CUT_WIDE = Cut(1, 512, 4)
"""Of one row of more than 8192 columns."""
CUT_TALL = Cut(2, 512, 1)
"""Of one row with more than 16384 outputs: one warp passes nothing through shared memory, and it
pays where programs come in many waves ([28672, 4096]: 29.8 us instead of 37.1 with four)."""
CUT = Cut(1, 512, 2)
CUT_BLOCKS = Cut(1, 2048, 4)
"""With scales that change along K."""

WIDENED = {
    16: Tiling(16, 64, 128, num_warps=4, num_stages=4, split=0, resident=2),
    32: Tiling(32, 64, 128, num_warps=4, num_stages=4, split=0, resident=2),
    64: Tiling(64, 64, 256, num_warps=4, num_stages=4, split=0),
    1 << 30: Tiling(128, 128, 64, num_warps=8, num_stages=3),
}
"""By the largest number of rows; W meets activations as they are."""

WIDENED_BLOCKS = WIDENED | {
    64: Tiling(64, 64, 128, num_warps=4, num_stages=4, split=0, resident=2),
}
"""The same with scales that change along K."""

ROUNDED_FROM = 65
"""Rows from which on activations are rounded to eight bits, if the device knows such floats."""

ROUNDED = {
    256: Tiling(128, 128, 256, num_warps=8, num_stages=3, split=0),
    1 << 30: Tiling(256, 128, 128, num_warps=8, num_stages=3),
}
"""By the largest number of rows, with scales that do not change along K, where `vendor_does` not
or `vendor_is_slow`.
"""

ROUNDED_BLOCKS = {
    256: Tiling(128, 128, 128, num_warps=8, num_stages=3, split=0),
    1 << 30: Tiling(128, 128, 128, num_warps=8, num_stages=3),
}
"""The same with scales that do: there is no room for more sums in a thread's registers."""

STEADY_TILINGS = {
    16: Tiling(16, 64, 128, num_warps=4, num_stages=4),
    64: Tiling(64, 64, 128, num_warps=4, num_stages=4),
    1 << 30: Tiling(128, 128, 128, num_warps=8, num_stages=3),
}
"""By the largest number of rows; a program for each tile. Of one block_k: sums over it are what
scales of blocks are applied to, and so no choice changes a result's bits.
"""

_DEPTH = 128
"""Scales that change along K do so every so many columns."""
_VENDOR_UNIT = 16
"""The vendor's product takes multiples of this."""


def pack_scaled(weight: PackedWeight) -> PackedWeight:
    """One scale per tensor becomes one per output channel; other blocks stay."""
    scaled = _scaled(weight)
    codes, width = scaled.weight.contiguous(), scaled.in_features
    if scaled.block[1] >= width:
        return Scaled(codes, scaled.by_rows().scale.contiguous(), (1, width))
    return Scaled(codes, scaled.scale.contiguous(), scaled.block)


def scaled_matmul(workspace: Workspace, *, overlapped: bool) -> MatMul:
    """The fastest products, for weights that `pack_scaled` has made."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        scaled = _scaled(weight)
        check_product(x, scaled.weight)
        rows, width = x.shape
        if x.dtype == torch.float32:  # no tensor core is exact to that
            return vendor(x, scaled.dequantize(x.dtype), bias)
        codes, scales = _codes(scaled, workspace), scales_of(scaled)
        if is_rounded(x, scaled, workspace):
            rounded = round_rows(x, scales.depth, overlapped=overlapped)
            return rounded_product(rounded, scaled, bias, workspace)
        if rows == 1 and width <= WIDEST:
            cut = cut_for(scaled)
            return vector(x, codes, bias, cut, scales, overlapped=overlapped)
        tiling = first_of(WIDENED_BLOCKS if scales.depth else WIDENED, rows)
        return stream(x, codes, bias, workspace, tiling, scales)

    return matmul


def cut_for(weight: Scaled) -> Cut:
    """How one row is multiplied, by the times of an H200 inside a captured step.

    At the full rate of reading there is time for about six instructions a weight; a row takes four
    to six, which is why two rows already go to tiles.
    """
    if not weight.per_row:
        return CUT_BLOCKS
    if weight.in_features > 8192:
        return CUT_WIDE
    return CUT_TALL if weight.out_features > 16384 else CUT


def steady_scaled_matmul(workspace: Workspace) -> MatMul:
    """Products that round a row alike in any company: activations as they are, W widened."""

    def matmul(x: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        scaled = _scaled(weight)
        check_product(x, scaled.weight)
        tiling = first_of(STEADY_TILINGS, len(x))
        codes = _codes(scaled, workspace)
        return stream(x, codes, bias, workspace, tiling, scales_of(scaled))

    return matmul


def rounded_matmul(workspace: Workspace) -> RoundedMatMul:
    """The fastest products of rounded activations, for the same weights."""

    def matmul(x: Rounded, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
        return rounded_product(x, _scaled(weight), bias, workspace)

    return matmul


def has_kernels(weight: PackedWeight) -> bool:
    """Scales are those of rows, or change along K as kernels expect."""
    scaled = _scaled(weight)
    return scaled.per_row or scaled.block[1] == _DEPTH


def is_rounded(x: Tensor, weight: Scaled, workspace: Workspace) -> bool:
    """Whether these activations are rounded for a product with this weight."""
    known = workspace.float8 and weight.weight.dtype == torch.float8_e4m3fn
    return known and len(x) >= ROUNDED_FROM and x.dtype != torch.float32


def rounded_product(
    x: Rounded, weight: Scaled, bias: Tensor | None, workspace: Workspace
) -> Tensor:
    """x Wᵀ (+ bias) of activations rounded in parts as W's scales have them."""
    rows, own = len(x.codes), scales_of(weight)
    if vendor_does(x, weight) and not vendor_is_slow(rows, weight):
        return vendor_rounded(x, weight, bias)
    scales = Scales(own.weight, x.scale, own.height, own.depth)
    tiling = first_of(ROUNDED_BLOCKS if own.depth else ROUNDED, rows)
    return stream(x.codes, weight.weight, bias, workspace, tiling, scales, x.dtype)


def vendor_does(x: Rounded, weight: Scaled) -> bool:
    """Whether `vendor_rounded` takes these: bfloat16, a scale per channel, even extents."""
    even = weight.out_features % _VENDOR_UNIT == 0 == weight.in_features % _VENDOR_UNIT
    return x.codes.is_cuda and x.dtype == torch.bfloat16 and weight.per_row and even


def vendor_is_slow(rows: int, weight: Scaled) -> bool:
    """Whether tiles are faster: where so few outputs are so long sums that K must be shared."""
    return rows <= min(ROUNDED) and weight.in_features > 2 * weight.out_features


def vendor_rounded(x: Rounded, weight: Scaled, bias: Tensor | None) -> Tensor:
    """The vendor's product, of a scale per row and per channel."""
    return torch._scaled_mm(
        x.codes,
        weight.weight.T,
        scale_a=x.scale,
        scale_b=weight.scale.T,
        bias=None if bias is None else bias.to(x.dtype),
        out_dtype=x.dtype,
        use_fast_accum=True,
    )


def scales_of(weight: Scaled) -> Scales:
    """The scales of W as kernels take them."""
    height, depth = weight.block
    return Scales(weight.scale, None, height, 0 if weight.per_row else depth)


def _codes(weight: Scaled, workspace: Workspace) -> Tensor:
    if workspace.float8 or weight.weight.dtype == torch.int8:
        return weight.weight
    return weight.weight.view(torch.uint8)


def _scaled(weight: PackedWeight) -> Scaled:
    if not isinstance(weight, Scaled):
        raise LayoutError(f"this product needs a Scaled weight, not {type(weight).__name__}")
    return weight
