"""Cases of the ops that read a weight, for every layout."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType, PackedWeight
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing.case import (
    Case,
    Draw,
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


_DENSE = (torch.float32, torch.float16, torch.bfloat16)
_PRODUCTS = ((1, 96), (2, 7), (5, 130), (33, 64), (130, 96))  # (T, N)


def weight_of(draw: Draw, layout: torch.dtype | GgmlType, rows: int, columns: int) -> PackedWeight:
    """A random weight [rows, columns] of one layout."""
    if isinstance(layout, GgmlType):
        return random_blocks(layout, rows, columns, draw.generator)
    return Dense((torch.randn(rows, columns, generator=draw.generator) / 8).to(layout))


def matmul_cases() -> Iterator[Case]:
    """Products and look-ups."""
    for layout in (*_DENSE, *sorted(DECODERS)):
        packed = isinstance(layout, GgmlType)
        label = layout.name if packed else str(layout).removeprefix("torch.")
        columns = (256, 768) if packed and layout.block_size > 32 else (96, 576)
        for (tokens, rows), width in product(_PRODUCTS, columns):
            run = partial(_check_matmul, layout=layout, shape=(tokens, rows, width))
            yield Case(f"matmul-{label}-{tokens}x{rows}x{width}", run)
        yield Case(f"matmul-{label}-isolated", partial(_check_isolated, layout=layout))
        yield Case(f"embed-{label}", partial(_check_embed, layout=layout))


def _check_matmul(draw: Draw, layout: torch.dtype | GgmlType, shape: tuple[int, int, int]) -> None:
    tokens, rows, width = shape
    weight = weight_of(draw, layout, rows, width)
    prepared = draw.backend.prepare(weight)
    matmul = draw.backend.matmul_for(prepared)
    dense = weight.dequantize().to(draw.backend.device)
    for x, bias in (
        (draw.normal(tokens, width), None),
        (draw.strided(tokens, width), draw.float32(rows)),
    ):
        expected = draw.reference().any_matmul(x, weight.to(x.device), bias)
        actual = matmul(x, prepared, bias)
        packed = isinstance(layout, GgmlType)
        assert_product_close(actual, expected, x, dense, eight_bits=packed)


def _check_isolated(draw: Draw, layout: torch.dtype | GgmlType) -> None:
    """A row of NaN leaves the others alone."""
    prepared = draw.backend.prepare(weight_of(draw, layout, 64, 256))
    matmul = draw.backend.matmul_for(prepared)
    x = draw.normal(9, 256)
    poisoned = x.clone()
    poisoned[4] = torch.nan
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert_close(matmul(poisoned, prepared)[others], matmul(x, prepared)[others])


def _check_embed(draw: Draw, layout: torch.dtype | GgmlType) -> None:
    weight = weight_of(draw, layout, 50, 256)
    prepared = draw.backend.prepare(weight)
    tokens = draw.integers(0, 50, 23).int()
    tokens[:3] = torch.tensor([49, 0, 49])
    for scale in (1.0, 256**0.5):
        expected = draw.reference().any_embed(tokens, weight.to(tokens.device), scale)
        assert_close(draw.backend.embed_for(prepared)(tokens, prepared, scale), expected)
