"""Cases of the ops that read a weight, for every layout."""

from collections.abc import Iterator
from enum import Enum
from functools import partial
from itertools import product

import torch

from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType, PackedWeight, Scaled
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing.case import (
    Case,
    Draw,
    Rounding,
    assert_close,
    assert_product_close,
)


def random_blocks(
    kind: GgmlType, rows: int, columns: int, generator: torch.Generator
) -> GgmlBlocks:
    """A weight of random blocks whose largest element lies in [0.01, 1]."""
    pool = torch.empty(0, kind.block_bytes, dtype=torch.uint8)
    while len(pool) < 64:
        shape = ((1 << 18) // kind.block_size, kind.block_bytes)
        drawn = torch.randint(256, shape, generator=generator).to(torch.uint8)
        largest = DECODERS[kind](drawn).abs().amax(1)
        pool = torch.cat((pool, drawn[(largest >= 0.01) & (largest <= 1)]))
    count = rows * columns // kind.block_size
    chosen = torch.randint(len(pool), (count,), generator=generator)
    return GgmlBlocks(pool[chosen].view(rows, -1), kind)


def random_scaled(
    rows: int, columns: int, block: tuple[int, int], generator: torch.Generator
) -> Scaled:
    """A weight of random eight-bit floats, the largest about 1, with random scales."""
    codes = (100 * torch.randn(rows, columns, generator=generator)).clamp(-448, 448)
    shape = (-(-rows // block[0]), -(-columns // block[1]))
    scale = (0.5 + torch.rand(shape, generator=generator)) / 448
    return Scaled(codes.to(torch.float8_e4m3fn), scale, block)


class ScaledBy(Enum):
    """What of an eight-bit float weight shares a scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    BLOCK = "block"

    def block(self, rows: int, columns: int) -> tuple[int, int]:
        """As `Scaled` has it, for a weight of this shape."""
        blocks = {"tensor": (rows, columns), "channel": (1, columns), "block": (128, 128)}
        return blocks[self.value]


Kind = torch.dtype | GgmlType | ScaledBy
"""Of a weight: Dense of a dtype, GgmlBlocks of a type, Scaled by something."""

_DENSE = (torch.float32, torch.float16, torch.bfloat16)
_PRODUCTS = ((1, 96), (2, 7), (5, 130), (33, 64), (130, 96))  # (T, N)


def weight_of(draw: Draw, kind: Kind, rows: int, columns: int) -> PackedWeight:
    """A random weight [rows, columns] of one kind."""
    if isinstance(kind, GgmlType):
        return random_blocks(kind, rows, columns, draw.generator)
    if isinstance(kind, ScaledBy):
        return random_scaled(rows, columns, kind.block(rows, columns), draw.generator)
    return Dense((torch.randn(rows, columns, generator=draw.generator) / 8).to(kind))


def rounding_of(kind: Kind) -> Rounding:
    """Of activations, that products with such a weight may do."""
    if isinstance(kind, GgmlType):
        return Rounding.STEPS
    return Rounding.FLOATS if isinstance(kind, ScaledBy) else Rounding.NONE


def label_of(kind: Kind) -> str:
    """For names of cases."""
    if isinstance(kind, ScaledBy):
        return f"float8_by_{kind.value}"
    return kind.name if isinstance(kind, GgmlType) else str(kind).removeprefix("torch.")


def matmul_cases() -> Iterator[Case]:
    """Products and look-ups."""
    for kind in (*_DENSE, *ScaledBy, *sorted(DECODERS)):
        label = label_of(kind)
        wide = isinstance(kind, GgmlType) and kind.block_size > 32
        for (tokens, rows), width in product(_PRODUCTS, (256, 768) if wide else (96, 576)):
            run = partial(_check_matmul, kind=kind, shape=(tokens, rows, width))
            yield Case(f"matmul-{label}-{tokens}x{rows}x{width}", run)
        yield Case(f"matmul-{label}-isolated", partial(_check_isolated, kind=kind))
        yield Case(f"embed-{label}", partial(_check_embed, kind=kind))


def _check_matmul(draw: Draw, kind: Kind, shape: tuple[int, int, int]) -> None:
    tokens, rows, width = shape
    weight = weight_of(draw, kind, rows, width)
    prepared = draw.backend.prepare(weight)
    matmul = draw.backend.matmul_for(prepared)
    dense = weight.dequantize().to(draw.backend.device)
    for x, bias in (
        (draw.normal(tokens, width), None),
        (draw.strided(tokens, width), draw.float32(rows)),
    ):
        expected = draw.reference().any_matmul(x, weight.to(x.device), bias)
        actual = matmul(x, prepared, bias)
        assert_product_close(actual, expected, x, dense, rounding_of(kind))


def _check_isolated(draw: Draw, kind: Kind) -> None:
    """A row of NaN leaves the others alone."""
    prepared = draw.backend.prepare(weight_of(draw, kind, 64, 256))
    matmul = draw.backend.matmul_for(prepared)
    x = draw.normal(9, 256)
    poisoned = x.clone()
    poisoned[4] = torch.nan
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert_close(matmul(poisoned, prepared)[others], matmul(x, prepared)[others])


def _check_embed(draw: Draw, kind: Kind) -> None:
    weight = weight_of(draw, kind, 50, 256)
    prepared = draw.backend.prepare(weight)
    tokens = draw.integers(0, 50, 23).int()
    tokens[:3] = torch.tensor([49, 0, 49])
    for scale in (1.0, 256**0.5):
        expected = draw.reference().any_embed(tokens, weight.to(tokens.device), scale)
        assert_close(draw.backend.embed_for(prepared)(tokens, prepared, scale), expected)
