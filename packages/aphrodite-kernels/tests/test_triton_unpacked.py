"""Products that unpack a weight on its way to tensor cores: shared tiles, ragged edges, bias."""

import pytest
import torch
from aphrodite_kernels.backends.triton import device_obstacle
from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.testing import random_blocks
from aphrodite_kernels.testing.kinds.grouped import random_grouped

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.dense_tiles import Tiling, workspace_on
from aphrodite_kernels.backends.triton.ggml import pack_fragments, pack_grouped
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, UNIT
from aphrodite_kernels.backends.triton.ggml.unpacked import ordered, unpacked_product

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHARED = Tiling(32, 64, UNIT, num_warps=4, num_stages=3, split=0)
WHOLE = Tiling(64, 64, UNIT, num_warps=4, num_stages=3, split=1)


def check(weight, packed, rows, tiling):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, weight.in_features + 8, generator=generator).half()[:, 8:].to(DEVICE)
    bias = torch.randn(weight.out_features, generator=generator).to(DEVICE)
    dense = weight.dequantize(torch.float64).to(DEVICE)
    out = unpacked_product(
        x, packed.to(DEVICE), bias, workspace_on(DEVICE), tiling, overlapped=False
    )
    expected = x.double() @ dense.T + bias
    typical = dense.square().sum(1).sqrt()
    assert ((out.double() - expected).abs() <= 2e-3 * (typical + expected.abs())).all()


@pytest.mark.parametrize("kind", sorted(ENCODINGS), ids=lambda kind: kind.name)
def test_every_encoding(kind):
    blocks = random_blocks(kind, 70, 512, torch.Generator().manual_seed(0))
    check(blocks, pack_fragments(blocks), 17, SHARED)


@pytest.mark.parametrize(
    ("bits", "group", "zero"),
    [(2, 16, True), (3, 128, True), (4, 128, False), (4, 128, True), (8, 64, True)],
)
def test_groups(bits, group, zero):
    generator = torch.Generator().manual_seed(0)
    weight = random_grouped(70, 640, generator, bits=bits, group=group, zero=zero, ordered=True)
    check(weight, pack_grouped(weight), 5, SHARED)


@pytest.mark.parametrize("rows", [1, 64, 65])
def test_programs_that_share_no_tile(rows):
    blocks = random_blocks(GgmlType.Q5_1, 130, 288, torch.Generator().manual_seed(0))
    check(blocks, pack_fragments(blocks), rows, WHOLE)


def test_a_tile_shared_by_programs_is_the_same_bits_each_time():
    blocks = random_blocks(GgmlType.Q4_K, 70, 2304, torch.Generator().manual_seed(0))
    packed, workspace = pack_fragments(blocks).to(DEVICE), workspace_on(DEVICE)
    x = torch.randn(9, 2304, generator=torch.Generator().manual_seed(1)).half().to(DEVICE)
    first, second = (
        unpacked_product(x, packed, None, workspace, SHARED, overlapped=False) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not workspace.arrivals.any()


def test_columns_are_ordered_as_lanes_take_them():
    x = torch.arange(3 * 20.0).view(3, 20).half().to(DEVICE)
    found = ordered(x, overlapped=False)
    assert found.shape == (3, UNIT)
    first = [0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15]
    assert found[1, :16].tolist() == [20 + column for column in first]
    assert found[1, 16:20].tolist() == [36, 37, 0, 0]
    assert found[1, 24:26].tolist() == [38, 39]
    assert not found[1, 26:].any()
