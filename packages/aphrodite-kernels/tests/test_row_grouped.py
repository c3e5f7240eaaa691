"""Weights in groups of rows: splitting, stacking and picking agree with the dense matrix."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from aphrodite_kernels.testing.kinds.row_grouped import random_row_grouped


def made(rows=12, columns=32, bits=3, seed=1):
    return random_row_grouped(rows, columns, bits, torch.Generator().manual_seed(seed))


def test_it_stands_for_what_the_definition_says():
    weight = made(bits=8)
    expected = [
        [(int(weight.codes[n, k]) - weight.zero[n % 3, k]) * weight.scale[n % 3, k] for k in (0, 9)]
        for n in range(12)
    ]
    assert torch.equal(weight.dequantize()[:, [0, 9]], torch.tensor(expected))
    assert weight.nbytes == 12 * 32 + 2 * 3 * 32 * 4 + 12 * 8


def test_rows_shards_and_stacks_agree_with_the_dense_matrix():
    weight, below = made(), made(rows=6, seed=2)
    dense = weight.dequantize()
    index = torch.tensor([11, 0, 0, 4])
    assert torch.equal(weight.rows(index).dequantize(), dense[index])
    for axis in (0, 1):
        parts = [weight.shard(axis, rank, 4).dequantize() for rank in range(4)]
        assert torch.equal(torch.cat(parts, axis), dense)
    both = RowGrouped.stack([weight, below.rows(torch.tensor([5, 2, 1]))])
    assert torch.equal(both.dequantize(), torch.cat([dense, below.dequantize()[[5, 2, 1]]]))
    assert torch.equal(weight.to(torch.device("cpu")).dequantize(), dense)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 9}, "1 to 8 bits, not 9"),
        ({"codes": torch.zeros(12, 12)}, "a uint8 matrix, not torch.float32"),
        ({"codes": torch.zeros(12, 13, dtype=torch.uint8)}, "13 bytes do not hold whole codes"),
        ({"scale": torch.zeros(3, 31)}, r"scale of 32 columns .* not \[3, 31\]"),
        ({"zero": torch.zeros(4, 32)}, r"zero of 32 columns .* not \[4, 32\]"),
        ({"group": torch.zeros(12)}, r"\[12\] int64, not \[12\] torch.float32"),
    ],
)
def test_tensors_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(LayoutError, match=message):
        replace(made(), **changes)


def test_what_does_not_fit_is_refused():
    weight = made()
    with pytest.raises(LayoutError, match="32 of 3 bits does not divide into 8 parts"):
        weight.shard(1, 0, 8)
    with pytest.raises(LayoutError, match="different width or bits"):
        RowGrouped.stack([weight, made(bits=4)])
    with pytest.raises(LayoutError, match="needs weights of that layout"):
        RowGrouped.stack([weight, Dense(torch.ones(2, 32))])
