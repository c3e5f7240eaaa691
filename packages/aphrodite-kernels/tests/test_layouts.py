"""What every layout owes: splitting, stacking and moving agree with the dense matrix."""

import pytest
import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType, Scaled
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing import random_blocks


def made(kind, rows=6, columns=1024):
    generator = torch.Generator().manual_seed(int(kind) if isinstance(kind, GgmlType) else 99)
    if isinstance(kind, tuple):
        return scaled(rows, columns, kind, generator)
    if isinstance(kind, GgmlType):
        return random_blocks(kind, rows, columns, generator)
    return Dense(torch.randn(rows, columns, generator=generator).to(kind))


def scaled(rows, columns, block, generator):
    block = (min(block[0], rows), min(block[1], columns))
    weight = torch.randn(rows, columns, generator=generator).to(torch.float8_e4m3fn)
    scale = torch.rand(-(-rows // block[0]), -(-columns // block[1]), generator=generator) + 0.5
    return Scaled(weight, scale, block)


WHOLE = 1 << 20
LAYOUTS = [
    torch.float32,
    torch.bfloat16,
    *DECODERS,
    (1, WHOLE),  # a scale for each row
    (3, 128),
    (WHOLE, WHOLE),  # one scale
]


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_layout_is_a_matrix(kind):
    weight = made(kind)
    dense = weight.dequantize()
    assert dense.shape == (weight.out_features, weight.in_features) == (6, 1024)
    assert dense.dtype == torch.float32
    assert torch.equal(weight.dequantize(torch.bfloat16), dense.bfloat16())
    assert weight.nbytes < dense.nbytes or kind == torch.float32


@pytest.mark.parametrize("kind", LAYOUTS, ids=str)
def test_rows_shards_and_stacks_agree_with_the_dense_matrix(kind):
    weight = made(kind)
    dense = weight.dequantize()
    index = torch.tensor([5, 0, 0, 3])
    assert torch.equal(weight.rows(index).dequantize(), dense[index])
    for axis in (0, 1):
        parts = [weight.shard(axis, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([part.dequantize() for part in parts], axis), dense)
    stacked = type(weight).stack([weight, weight.shard(0, 1, 2)])
    assert torch.equal(stacked.dequantize(), torch.cat((dense, dense[3:])))
    assert torch.equal(weight.to(torch.device("cpu")).dequantize(), dense)


def test_decoding_in_chunks_changes_nothing():
    weight = made(GgmlType.Q4_K, 8, 256 * 1024)
    tail = weight.rows(torch.tensor([7]))
    assert torch.equal(weight.dequantize()[7:], tail.dequantize())


def test_a_block_is_not_split():
    with pytest.raises(LayoutError, match="4 Q4_K blocks along K do not divide into 3"):
        made(GgmlType.Q4_K).shard(1, 0, 3)
    with pytest.raises(LayoutError, match="6 rows"):
        made(GgmlType.Q4_K).shard(0, 0, 4)


@pytest.mark.parametrize(
    "others",
    [made(GgmlType.Q5_K), made(GgmlType.Q4_K, columns=512), made(torch.float32)],
    ids=["type", "width", "layout"],
)
def test_unlike_weights_do_not_stack(others):
    with pytest.raises(LayoutError):
        GgmlBlocks.stack([made(GgmlType.Q4_K), others])


def test_unlike_dense_weights_do_not_stack():
    with pytest.raises(LayoutError, match="bfloat16"):
        Dense.stack([made(torch.float32), made(torch.bfloat16)])
    with pytest.raises(LayoutError):
        Dense.stack([])


def test_a_type_without_decoder_is_named():
    with pytest.raises(LayoutError, match=r"Q8_K has no decoder; present are .*Q4_0"):
        GgmlBlocks(torch.zeros(1, 292, dtype=torch.uint8), GgmlType.Q8_K)


def test_data_must_be_whole_blocks_of_bytes():
    with pytest.raises(LayoutError, match="row of 35 bytes"):
        GgmlBlocks(torch.zeros(1, 35, dtype=torch.uint8), GgmlType.Q8_0)
    with pytest.raises(LayoutError, match="int8"):
        GgmlBlocks(torch.zeros(1, 34, dtype=torch.int8), GgmlType.Q8_0)


def test_scales_of_other_heights_stack_row_by_row():
    generator = torch.Generator().manual_seed(3)
    parts = [
        scaled(rows, 256, block, generator)
        for rows, block in ((5, (WHOLE, WHOLE)), (4, (WHOLE, WHOLE)), (3, (1, WHOLE)))
    ]
    stacked = Scaled.stack(parts)
    assert stacked.per_row
    dense = torch.cat([part.dequantize() for part in parts])
    assert torch.equal(stacked.dequantize(), dense)


def test_scales_that_do_not_fit_are_refused():
    weight = torch.zeros(256, 384).to(torch.float8_e4m3fn)
    with pytest.raises(LayoutError, match=r"are \[2, 3\] float32, not \[2, 2\]"):
        Scaled(weight, torch.ones(2, 2), (128, 128))
    with pytest.raises(LayoutError, match=r"float8_e4m3fn or int8, not torch.float32"):
        Scaled(torch.zeros(2, 2), torch.ones(2, 1), (1, 2))
    blocks = Scaled(weight, torch.ones(2, 3), (128, 128))
    with pytest.raises(LayoutError, match="384 in blocks of 128 does not divide into 2"):
        blocks.shard(1, 0, 2)
    with pytest.raises(LayoutError, match="scaled weights of different kinds"):
        Scaled.stack([blocks, blocks.shard(1, 0, 3)])
