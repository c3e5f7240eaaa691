"""Matrices become ggml blocks no worse than llama.cpp's quantiser makes them, or the same ones."""

from pathlib import Path

import numpy
import pytest
import torch
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from aphrodite_quant import FormatError
from aphrodite_quant.ggml.encode import encode
from aphrodite_quant.ggml.encoders import ENCODERS

GOLDEN = numpy.load(Path(__file__).parent / "golden" / "ggml-encoded.npz")
ROWS = torch.from_numpy(GOLDEN["rows"]).float()
IMPORTANCE = torch.from_numpy(GOLDEN["importance"]).float()
SEARCHED = {
    GgmlType.Q2_K,
    GgmlType.Q3_K,
    GgmlType.Q4_K,
    GgmlType.Q5_K,
    GgmlType.Q6_K,
    GgmlType.IQ4_NL,
    GgmlType.IQ4_XS,
}
each_type = pytest.mark.parametrize("kind", sorted(ENCODERS), ids=lambda kind: kind.name)


def _error(weight, importance):
    return float((importance * (weight.dequantize() - ROWS).square()).mean().sqrt())


@pytest.mark.parametrize("kind", sorted(set(ENCODERS) - SEARCHED), ids=lambda kind: kind.name)
def test_rounded_types_are_llama_cpps_bytes(kind):
    assert numpy.array_equal(encode(ROWS, kind).data.numpy(), GOLDEN[kind.name])


@pytest.mark.parametrize("kind", sorted(SEARCHED), ids=lambda kind: kind.name)
def test_searched_types_err_no_more_than_llama_cpp(kind):
    theirs = GgmlBlocks(torch.from_numpy(GOLDEN[kind.name]), kind)
    assert _error(encode(ROWS, kind), 1) <= _error(theirs, 1)


@each_type
def test_importance_errs_hardly_more_than_llama_cpp(kind):
    theirs = GgmlBlocks(torch.from_numpy(GOLDEN[f"{kind.name}.weighted"]), kind)
    ours = encode(ROWS, kind, IMPORTANCE)
    assert _error(ours, IMPORTANCE) <= 1.02 * _error(theirs, IMPORTANCE)
    assert _error(ours, IMPORTANCE) < _error(encode(ROWS, kind), IMPORTANCE)


@each_type
def test_what_a_type_can_hold_it_keeps(kind):
    once = encode(ROWS, kind).dequantize()
    again = encode(once, kind).dequantize()
    assert (again - once).norm() <= (once - ROWS).norm()


@each_type
@pytest.mark.parametrize("number", [0.0, 1.5, -1.5, 1e-30])
def test_equal_numbers(kind, number):
    weight = torch.full((1, 256), number)
    decoded = encode(weight, kind).dequantize()
    assert torch.all((decoded - weight).abs() <= 0.15 * abs(number) + 1e-9)
    assert torch.equal(encode(weight, kind, torch.zeros(256)).dequantize() > 1, decoded > 1)


def test_one_row_among_many_is_encoded_alike():
    weight = ROWS.repeat(100, 1)
    assert torch.equal(encode(weight, GgmlType.Q4_K).data[-8:], encode(ROWS, GgmlType.Q4_K).data)


@pytest.mark.parametrize(
    ("weight", "kind", "importance", "message"),
    [
        (ROWS, GgmlType.IQ1_S, None, "cannot be written as IQ1_S; present are Q4_0"),
        (ROWS[:, :96], GgmlType.Q4_K, None, r"\[8, 96\] cannot become Q4_K.* multiple of 256"),
        (ROWS / 0, GgmlType.Q4_0, None, "not finite"),
        (ROWS * 1e9, GgmlType.Q4_0, None, "beyond float16"),
        (ROWS, GgmlType.Q4_0, torch.ones(7), r"importance is \[7\]; expected \[512\]"),
        (ROWS, GgmlType.Q4_0, -IMPORTANCE, "none negative"),
    ],
)
def test_what_cannot_be_encoded_is_said(weight, kind, importance, message):
    with pytest.raises(FormatError, match=message):
        encode(weight, kind, importance)
