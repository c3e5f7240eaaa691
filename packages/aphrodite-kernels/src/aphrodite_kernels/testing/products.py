"""Cases of the ops that read a weight, for every layout."""

from collections.abc import Iterator
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from aphrodite_kernels.protocols import Activation
from aphrodite_kernels.rounded import Rows
from aphrodite_kernels.testing.case import Case, Draw, Rounding, assert_close, assert_product_close
from aphrodite_kernels.testing.kinds import WeightKind, weight_kinds

_PRODUCTS = ((1, 96), (2, 7), (5, 130), (33, 64), (130, 96))  # (T, N)


def matmul_cases() -> Iterator[Case]:
    """Products and look-ups. Of the products of a kind, four are not spare, of unlike rows."""
    for place, kind in enumerate(weight_kinds()):
        few = 1 + place // 2 % 2  # one of two shapes for the same kernels
        for size, (tokens, rows) in enumerate(_PRODUCTS):
            for width, chosen in _widths(kind, place + size):
                run = partial(_check_matmul, kind=kind, shape=(tokens, rows, width))
                name = f"matmul-{kind.label}-{tokens}x{rows}x{width}"
                yield Case(name, run, spare=not chosen or size == few)
        yield Case(f"matmul-{kind.label}-isolated", partial(_check_isolated, kind=kind))
        if kind.rounding == Rounding.FLOATS:
            for width, chosen in _widths(kind, place):
                run = partial(_check_inputs, kind=kind, width=width)
                yield Case(f"inputs-{kind.label}-{width}", run, spare=not chosen)
        yield Case(f"embed-{kind.label}", partial(_check_embed, kind=kind))


def _widths(kind: WeightKind, turn: int) -> Iterator[tuple[int, bool]]:
    """Each, and whether it is its turn: kinds and numbers of rows take them in turns."""
    for place, width in enumerate(kind.widths):
        yield width, place == turn % len(kind.widths)


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
    """Nine rows are right, and one of NaN leaves the others alone."""
    weight = kind.draw(64, 256, draw.generator)
    prepared = draw.backend.prepare(weight)
    matmul = draw.backend.matmul_for(prepared)
    x = draw.normal(9, 256)
    actual = matmul(x, prepared)
    expected = draw.reference().any_matmul(x, weight.to(x.device), None)
    assert_product_close(actual, expected, x, weight.dequantize().to(x.device), kind.rounding)
    poisoned = x.clone()
    poisoned[4] = torch.nan
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert_close(matmul(poisoned, prepared)[others], actual[others])


def _check_inputs(draw: Draw, kind: WeightKind, width: int) -> None:
    """What a norm or a gate rounds for a product gives what the product itself would round."""
    backend = draw.backend
    prepared = backend.prepare(kind.draw(64, width, draw.generator))
    inputs, bias = backend.inputs_of(prepared), draw.float32(64)

    def check(found: Rows, plain: Tensor) -> None:
        if isinstance(found, Tensor):
            assert_close(found, plain)
            return
        actual = backend.rounded_matmul(found, prepared, bias)
        assert torch.equal(actual, backend.matmul_for(prepared)(plain, prepared, bias))
        expected = draw.reference().rounded_matmul(found, prepared, bias)
        dense = prepared.dequantize()
        assert_product_close(actual, expected, found.widened(), dense, Rounding.NONE)

    for rows in (3, 130):
        x, residual, norm = draw.strided(rows, width), draw.normal(rows, width), draw.float32(width)
        found, total = inputs.add_rms_norm(x, residual, norm, 1e-5)
        plain, expected = backend.add_rms_norm(x, residual, norm, 1e-5)
        assert torch.equal(total, expected)
        check(found, plain)
        gate, up = draw.strided(rows, width), draw.strided(rows, width)
        for activation in get_args(Activation):
            plain = backend.gated(gate, up, activation)
            check(inputs.gated(gate, up, activation), plain)


def _check_embed(draw: Draw, kind: WeightKind) -> None:
    weight = kind.draw(50, 256, draw.generator)
    prepared = draw.backend.prepare(weight)
    tokens = draw.integers(0, 50, 23).int()
    tokens[:3] = torch.tensor([49, 0, 49])
    for scale in (1.0, 256**0.5):
        expected = draw.reference().any_embed(tokens, weight.to(tokens.device), scale)
        assert_close(draw.backend.embed_for(prepared)(tokens, prepared, scale), expected)
