"""Cases of the ops that read a weight, for every layout."""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch

from aphrodite_kernels.testing.case import Case, Draw, assert_close, assert_product_close
from aphrodite_kernels.testing.kinds import WeightKind, weight_kinds

_PRODUCTS = ((1, 96), (2, 7), (5, 130), (33, 64), (130, 96))  # (T, N)


def matmul_cases() -> Iterator[Case]:
    """Products and look-ups."""
    for kind in weight_kinds():
        for (tokens, rows), width in product(_PRODUCTS, kind.widths):
            run = partial(_check_matmul, kind=kind, shape=(tokens, rows, width))
            yield Case(f"matmul-{kind.label}-{tokens}x{rows}x{width}", run)
        yield Case(f"matmul-{kind.label}-isolated", partial(_check_isolated, kind=kind))
        yield Case(f"embed-{kind.label}", partial(_check_embed, kind=kind))


def _check_matmul(draw: Draw, kind: WeightKind, shape: tuple[int, int, int]) -> None:
    tokens, rows, width = shape
    weight = kind.draw(rows, width, draw.generator)
    prepared = draw.backend.prepare(weight)
    matmul = draw.backend.matmul_for(prepared)
    dense = weight.dequantize().to(draw.backend.device)
    for x, bias in (
        (draw.normal(tokens, width), None),
        (draw.strided(tokens, width), draw.float32(rows)),
    ):
        expected = draw.reference().any_matmul(x, weight.to(x.device), bias)
        actual = matmul(x, prepared, bias)
        assert_product_close(actual, expected, x, dense, kind.rounding)


def _check_isolated(draw: Draw, kind: WeightKind) -> None:
    """A row of NaN leaves the others alone."""
    prepared = draw.backend.prepare(kind.draw(64, 256, draw.generator))
    matmul = draw.backend.matmul_for(prepared)
    x = draw.normal(9, 256)
    poisoned = x.clone()
    poisoned[4] = torch.nan
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert_close(matmul(poisoned, prepared)[others], matmul(x, prepared)[others])


def _check_embed(draw: Draw, kind: WeightKind) -> None:
    weight = kind.draw(50, 256, draw.generator)
    prepared = draw.backend.prepare(weight)
    tokens = draw.integers(0, 50, 23).int()
    tokens[:3] = torch.tensor([49, 0, 49])
    for scale in (1.0, 256**0.5):
        expected = draw.reference().any_embed(tokens, weight.to(tokens.device), scale)
        assert_close(draw.backend.embed_for(prepared)(tokens, prepared, scale), expected)
