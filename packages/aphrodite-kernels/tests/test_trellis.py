"""Trellises: splitting, stacking and picking rows agree with the dense matrix."""

import pytest
import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.trellis import Trellis, TrellisCodebook
from aphrodite_kernels.testing.kinds.trellis import random_trellis


def made(rows=256, columns=384, bits=3, codebook=TrellisCodebook.MCG, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return random_trellis(rows, columns, bits, codebook, generator)


def test_it_is_smaller_than_what_it_stands_for():
    weight = made()
    dense = weight.dequantize()
    assert dense.shape == (weight.out_features, weight.in_features) == (256, 384)
    assert weight.nbytes == 256 * 384 * 3 // 8 + 2 * (256 + 384)
    assert torch.equal(weight.dequantize(torch.bfloat16), dense.bfloat16())


def test_what_is_decoded_in_parts_is_the_same(monkeypatch):
    weight = made()
    dense, decoded = weight.dequantize(), weight.decode()
    monkeypatch.setattr("aphrodite_kernels.layouts.trellis._DECODED_AT_ONCE", 1)
    assert torch.equal(weight.decode(), decoded)
    torch.testing.assert_close(weight.dequantize(), dense, rtol=1e-6, atol=1e-6)


def test_rows_shards_and_stacks_agree_with_the_dense_matrix():
    weight = made()
    dense = weight.dequantize()
    index = torch.tensor([200, 0, 0, 129])
    picked = weight.rows(index)
    torch.testing.assert_close(picked.dequantize(), dense[index])
    torch.testing.assert_close(picked.rows(torch.tensor([3, 1])).dequantize(), dense[[129, 0]])
    assert weight.rows(index[:0]).dequantize().shape == (0, 384)
    for axis, size in ((0, 2), (1, 3)):
        parts = [weight.shard(axis, rank, size).dequantize() for rank in range(size)]
        torch.testing.assert_close(torch.cat(parts, axis), dense)
    below = Trellis(weight.trellis.roll(1, 0), weight.suh, weight.svh.flip(0), weight.codebook)
    for parts in ([weight, below], [weight, picked, below]):
        expected = torch.cat([part.dequantize() for part in parts])
        torch.testing.assert_close(Trellis.stack(parts).dequantize(), expected)
    assert torch.equal(weight.to(torch.device("cpu")).dequantize(), dense)


def test_padding_is_cut():
    weight = made()
    dense = weight.dequantize()
    for rows, columns in ((200, 300), (256, 257), (129, 384)):
        cut = weight.cropped(rows, columns)
        assert (cut.out_features, cut.in_features) == (rows, columns)
        torch.testing.assert_close(cut.dequantize(), dense[:rows, :columns])
        index = torch.tensor([100, 3])
        torch.testing.assert_close(cut.rows(index).dequantize(), dense[index, :columns])
        twice = Trellis.stack([cut, cut]).dequantize()
        torch.testing.assert_close(twice, dense[:rows, :columns].repeat(2, 1))
    for rows, columns in ((128, 384), (200, 256), (257, 384)):
        with pytest.raises(LayoutError, match=rf"\[256, 384\] is not one of \[{rows}, {columns}\]"):
            weight.cropped(rows, columns)
    with pytest.raises(LayoutError, match="384 columns, padded, has no equal parts"):
        weight.cropped(256, 300).shard(1, 0, 3)
    with pytest.raises(LayoutError, match="different bits"):
        Trellis.stack([weight, weight.cropped(256, 300)])


def test_the_transform_is_orthonormal():
    weight = made()
    ones = Trellis(
        weight.trellis, torch.ones_like(weight.suh), torch.ones_like(weight.svh), weight.codebook
    )
    found, expected = ones.dequantize().double().norm(), weight.decode().double().norm()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "other",
    [made(bits=4), made(codebook=TrellisCodebook.INST3), made(seed=2), Dense(torch.ones(2, 384))],
)
def test_what_does_not_share_its_input_stays_apart(other):
    with pytest.raises(LayoutError):
        Trellis.stack([made(), other])


def test_blocks_stay_whole():
    with pytest.raises(LayoutError, match="384 does not divide into 2 parts of whole 128"):
        made().shard(1, 0, 2)
    with pytest.raises(LayoutError, match="picked rows"):
        made(200).shard(0, 0, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trellis": torch.zeros(8, 8, 72).short()}, r"1.5, 2.5 or 3.5, not \[8, 8, 72\]"),
        ({"trellis": torch.zeros(8, 8, 40).short()}, "of 2.5 bits has the codebook mul1"),
        ({"trellis": torch.zeros(8, 8, 32)}, "not .* torch.float32"),
        ({"suh": torch.ones(64).half()}, r"suh of a trellis .* is \[128\] float16, not \[64\]"),
        ({"svh": torch.ones(128)}, "svh .* not .* torch.float32"),
        (
            {"trellis": torch.zeros(4, 8, 32).short(), "suh": torch.ones(64).half()},
            "multiples of 128, not 64",
        ),
    ],
)
def test_what_is_no_trellis_is_refused(change, message):
    parts = {
        "trellis": torch.zeros(8, 8, 32).short(),
        "suh": torch.ones(128).half(),
        "svh": torch.ones(128).half(),
        "codebook": TrellisCodebook.MCG,
    }
    with pytest.raises(LayoutError, match=message):
        Trellis(**parts | change)
