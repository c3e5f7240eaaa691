"""The kernels of dense products, each by itself: the conformance suite sees only the chosen one."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.backends.triton import device_obstacle
from aphrodite_kernels.errors import LayoutError, ShapeError
from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.dense import (
    choose,
    dense_matmul,
    dense_repack,
    steady_matmul,
)
from aphrodite_kernels.backends.triton.dense_stream import stream
from aphrodite_kernels.backends.triton.dense_tiles import Tiling, workspace_on
from aphrodite_kernels.backends.triton.dense_vector import Cut, vector

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WORKSPACE = workspace_on(DEVICE)


def operands(rows, columns, width, *, dtype=torch.float16, gap=0):
    generator = torch.Generator().manual_seed(rows)
    wide = torch.randn(rows, width + gap, generator=generator)
    weight = torch.randn(columns, width, generator=generator) / width**0.5
    bias = torch.randn(columns, generator=generator)
    x = wide.to(dtype).to(DEVICE)[:, gap:]
    return x, weight.to(dtype).to(DEVICE), bias.to(DEVICE)


def assert_product(actual, x, weight, bias=None):
    expected = x.float() @ weight.float().T + (0 if bias is None else bias)
    torch.testing.assert_close(actual.float(), expected, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize("split", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("gap", [0, 3, 8])
def test_a_product_is_the_same_however_its_tiles_are_shared(split, gap):
    x, weight, bias = operands(20, 70, 300, gap=gap)
    tiling = Tiling(16, 32, 32, num_warps=4, num_stages=2, split=split)
    for _ in range(2):  # the workspace is clean again after the first
        assert_product(stream(x, weight, bias, WORKSPACE, tiling), x, weight, bias)
    assert not WORKSPACE.arrivals.any()


def test_a_width_that_no_descriptor_can_read():
    x, weight, bias = operands(3, 40, 77)
    tiling = Tiling(16, 32, 32, num_warps=4, num_stages=2, split=2)
    assert_product(stream(x, weight, bias, WORKSPACE, tiling), x, weight, bias)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("cut", [Cut(1, 128, 4), Cut(4, 512, 4)], ids=str)
def test_vectors(rows, cut):
    x, weight, bias = operands(rows, 10, 300, gap=5)
    assert_product(vector(x, weight, bias, cut), x, weight, bias)
    assert_product(vector(x, weight, None, cut), x, weight)


@pytest.mark.parametrize("width", [300, 1024])
def test_steady_rows_are_the_same_in_any_company(width):
    x, weight, bias = operands(260, 130, width)
    steady = steady_matmul(WORKSPACE)
    everything = steady(x, Dense(weight), bias)
    assert_product(everything, x, weight, bias)
    for rows in (1, 17, 33, 65, 257):
        alone, among = steady(x[:rows], Dense(weight), bias), everything[:rows]
        if DEVICE.type == "cuda":
            assert torch.equal(alone, among)
        else:  # the interpreter multiplies by numpy, which rounds by shape
            torch.testing.assert_close(alone, among)


def test_weights_take_the_dtype_of_activations():
    repack = dense_repack(torch.float16)
    prepared = repack(Dense(torch.randn(8, 64)[:, 32:]))
    assert prepared.weight.dtype == torch.float16
    assert prepared.weight.is_contiguous()
    with pytest.raises(LayoutError, match="needs a Dense weight"):
        repack(GgmlBlocks(torch.zeros(1, 34, dtype=torch.uint8), GgmlType.Q8_0))


def test_operands_that_do_not_fit_are_refused():
    x, weight, _ = operands(2, 8, 64)
    with pytest.raises(ShapeError, match=r"x must be \[T, K\]"):
        dense_matmul(WORKSPACE)(x[:, :32], Dense(weight))
    with pytest.raises(ShapeError, match="of the same dtype or of eight bits"):
        dense_matmul(WORKSPACE)(x.float(), Dense(weight))


def test_a_tile_is_shared_where_there_are_few():
    def split(columns, rows=16):
        return choose(rows, columns, 4096, torch.bfloat16, 132).split

    assert split(4096) == 0  # 64 tiles for 132 processors: in equal shares
    assert split(6144) == 1
    assert split(28672, 32) == 1


def test_many_rows_are_left_to_the_vendor():
    shape = (4096, 4096)
    assert choose(2, *shape, torch.float32, 132) == choose(2, *shape, torch.bfloat16, 132)
    assert choose(16, *shape, torch.float32, 132) is None
    assert choose(32, *shape, torch.bfloat16, 132).block_t == 32
    assert choose(33, *shape, torch.bfloat16, 132) is None
    assert choose(2, 4096, 14336, torch.bfloat16, 132) is None
    assert choose(1, 4096, 14336, torch.bfloat16, 132) is not None


@pytest.mark.parametrize(("kilobytes", "stages"), [(227, 4), (99, 3), (20, 1)])
def test_no_more_stages_than_memory_holds(kilobytes, stages):
    place = replace(WORKSPACE, shared=kilobytes << 10)
    x, weight = torch.zeros(1, 128).half(), torch.zeros(64, 128).half()
    tiling = Tiling(64, 64, 128, num_warps=4, num_stages=4)  # 32 KiB a stage
    assert place.stages(tiling, x, weight) == stages


def test_eight_warps_that_widen_are_no_more_than_one_tile_ahead():
    x, weight = torch.zeros(1, 128).half(), torch.zeros(128, 128, dtype=torch.int8)
    wide = Tiling(128, 128, 64, num_warps=8, num_stages=3)
    assert WORKSPACE.stages(wide, x, weight) == 2
    assert WORKSPACE.stages(replace(wide, num_warps=4), x, weight) == 3
    assert WORKSPACE.stages(wide, x, weight.half()) == 3


def test_more_pieces_than_the_workspace_holds_are_refused():
    x, weight, _ = operands(2, 8, 64 * 100)
    tiling = Tiling(256, 256, 32, num_warps=4, num_stages=2, split=200)
    with pytest.raises(ShapeError, match="do not fit into a workspace"):
        stream(x, weight, None, WORKSPACE, tiling)
