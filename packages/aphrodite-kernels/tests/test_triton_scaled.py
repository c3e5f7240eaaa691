"""The kernels of scaled weights, each by itself: the conformance suite sees only the chosen one."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.backends.triton import create, device_obstacle
from aphrodite_kernels.errors import BackendError, LayoutError, ShapeError
from aphrodite_kernels.layouts import Dense, Scaled

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.activation import gated_on, gated_rounded
from aphrodite_kernels.backends.triton.dense_stream import stream
from aphrodite_kernels.backends.triton.dense_tiles import Tiling, workspace_on
from aphrodite_kernels.backends.triton.dense_vector import Cut, vector
from aphrodite_kernels.backends.triton.norm import add_rms_norm_on, add_rms_norm_rounded
from aphrodite_kernels.backends.triton.scaled import (
    pack_scaled,
    rounded_product,
    scaled_matmul,
    scales_of,
    steady_scaled_matmul,
)
from aphrodite_kernels.backends.triton.scaled_rows import round_rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WORKSPACE = workspace_on(DEVICE)
WITHOUT_FLOAT8 = replace(WORKSPACE, descriptors=False, float8=False)
BLOCKS = [(1, None), (None, None), (128, 128), (1, 128)]


def operands(rows, columns, width, block, *, gap=0):
    """x [rows, width], a packed weight with scales in blocks, a bias; None: the whole extent."""
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, width + gap, generator=generator).half().to(DEVICE)[:, gap:]
    codes = (64 * torch.randn(columns, width, generator=generator)).to(torch.float8_e4m3fn)
    block = (block[0] or columns, block[1] or width)
    shape = (-(-columns // block[0]), -(-width // block[1]))
    scale = (0.5 + torch.rand(shape, generator=generator)) / (64 * width**0.5)
    bias = torch.randn(columns, generator=generator).to(DEVICE)
    return x, pack_scaled(Scaled(codes.to(DEVICE), scale.to(DEVICE), block)), bias


def assert_product(actual, x, weight, bias=None):
    expected = x.float() @ weight.dequantize().T + (0 if bias is None else bias)
    torch.testing.assert_close(actual.float(), expected, rtol=4e-3, atol=4e-3)


def assert_rounded_product(actual, x, weight, bias=None):
    """To 4e-2 of the root mean square.

    A float of three bits after the point is off by up to 2**-4 of itself, uniformly: on the mean
    2**-4 / 3**0.5 = 3.6e-2 at the worst places between two powers of two, and less elsewhere.
    """
    exact = x.float() @ weight.dequantize().T
    error = actual.float() - exact - (0 if bias is None else bias)
    assert error.square().mean().sqrt() < 4e-2 * exact.square().mean().sqrt()


@pytest.mark.pairwise
@pytest.mark.parametrize("workspace", [WORKSPACE, WITHOUT_FLOAT8], ids=["float8", "bytes"])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 17, 40])
def test_few_rows_are_not_rounded(rows, block, workspace):
    for width in (77, 300):
        x, weight, bias = operands(rows, 140, width, block, gap=3)
        matmul = scaled_matmul(workspace, overlapped=False)
        assert_product(matmul(x, weight, bias), x, weight, bias)
        assert_product(matmul(x, weight), x, weight)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_many_rows_are_rounded_where_the_device_has_such_floats(block):
    for width in (77, 304):
        x, weight, bias = operands(130, 140, width, block, gap=8)
        actual = scaled_matmul(WORKSPACE, overlapped=False)(x, weight, bias)
        assert_rounded_product(actual, x, weight, bias)
        actual = scaled_matmul(WITHOUT_FLOAT8, overlapped=False)(x, weight, bias)
        assert_product(actual, x, weight, bias)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_vectors(block):
    for rows, cut in ((3, Cut(1, 128, 4)), (2, Cut(4, 512, 4))):
        x, weight, bias = operands(rows, 10, 300, block, gap=5)
        actual = vector(x, weight.weight, bias, cut, scales_of(weight))
        assert_product(actual, x, weight, bias)


def test_activations_of_float32_are_not_rounded():
    for rows in (2, 70):
        x, weight, bias = operands(rows, 140, 300, (128, 128))
        actual = scaled_matmul(WORKSPACE, overlapped=False)(x.float(), weight, bias)
        expected = x.float() @ weight.dequantize().T + bias
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
@pytest.mark.parametrize("split", [0, 1, 3])
def test_a_product_is_the_same_however_its_tiles_are_shared(split, block):
    x, weight, bias = operands(20, 140, 400, block)
    tiling = Tiling(16, 32, 32, num_warps=4, num_stages=2, split=split)
    for _ in range(2):  # the workspace is clean again after the first
        actual = stream(x, weight.weight, bias, WORKSPACE, tiling, scales_of(weight))
        assert_product(actual, x, weight, bias)
    assert not WORKSPACE.arrivals.any()


@pytest.mark.skipif(DEVICE.type != "cuda", reason="bfloat16 products need a device")
@pytest.mark.parametrize("rows", [65, 130, 300])
def test_rounded_products_in_bfloat16(rows):
    for block in BLOCKS:
        x, weight, bias = operands(rows, 144, 304, block)
        x = x.bfloat16()
        rounded = round_rows(x, scales_of(weight).depth, overlapped=False)
        actual = rounded_product(rounded, weight, bias, WORKSPACE)
        assert_rounded_product(actual, x, weight, bias)


@pytest.mark.parametrize("block", [(1, None), (128, 128)], ids=str)
@pytest.mark.parametrize("workspace", [WORKSPACE, WITHOUT_FLOAT8], ids=["float8", "bytes"])
def test_steady_rows_are_the_same_in_any_company(block, workspace):
    x, weight, bias = operands(130, 130, 1024, block)
    steady = steady_scaled_matmul(workspace)
    everything = steady(x, weight, bias)
    assert_product(everything, x, weight, bias)
    for rows in (1, 17, 65):
        alone, among = steady(x[:rows], weight, bias), everything[:rows]
        if DEVICE.type == "cuda":
            assert torch.equal(alone, among)
        else:  # the interpreter multiplies by numpy, which rounds by shape
            torch.testing.assert_close(alone, among)


@pytest.mark.parametrize("depth", [0, 128])
def test_rows_are_rounded_to_the_nearest(depth):
    x = torch.randn(7, 300, device=DEVICE).half()
    x[2] = 0
    x[3] *= 1e-5
    rounded = round_rows(x, depth, overlapped=False)
    part = rounded.depth
    assert part == (depth or 300)
    for first in range(0, 300, part):
        piece = x[:, first : first + part].float()
        factor = rounded.scale[:, first // part, None]
        largest = piece.abs().amax(1, keepdim=True)
        torch.testing.assert_close(factor, largest.clamp_min(1e-30) / 448)
        expected = (piece / factor).to(torch.float8_e4m3fn).float()
        actual = rounded.codes[:, first : first + part].float()
        assert (actual != expected).float().mean() < 1e-2  # a quotient next to the middle of two
        torch.testing.assert_close(actual, expected, rtol=2**-3, atol=2**-9)


@pytest.mark.parametrize("block", [(64, 64), (1, 32)], ids=str)
def test_blocks_without_a_kernel_are_dequantised(block):
    x, weight, bias = operands(20, 140, 320, block)
    backend = create(DEVICE, threads=None, dtype=x.dtype)
    assert not backend.multiplies(weight)
    assert_product(backend.matmul_for(weight)(x, weight, bias), x, weight, bias)
    refusing = backend.deterministic().matmul_for(weight)
    with pytest.raises(BackendError, match="no deterministic product for the layout Scaled"):
        refusing(x, weight)


@pytest.mark.parametrize("depth", [0, 128])
@pytest.mark.parametrize("width", [77, 640, 2048, 4096, 5120, 8192])
def test_norms_and_gates_round_as_rows_are_rounded(width, depth):
    """Bit for bit."""
    rows, dtype = (67, torch.bfloat16) if DEVICE.type == "cuda" else (3, torch.float16)
    x, residual, gate, up = torch.randn(4, rows, width, device=DEVICE).to(dtype).unbind()
    weight = torch.randn(width, device=DEVICE)
    normed, total = add_rms_norm_on(overlapped=False)(x, residual, weight, 1e-5)
    found, found_total = add_rms_norm_rounded(x, residual, weight, 1e-5, depth, overlapped=False)
    assert torch.equal(found_total, total)
    assert_same(found, round_rows(normed, depth, overlapped=False))
    for activation in ("silu", "gelu_tanh"):
        gated = gated_on(overlapped=False)(gate, up, activation)
        found = gated_rounded(gate, up, activation, depth, overlapped=False)
        assert_same(found, round_rows(gated, depth, overlapped=False))


def assert_same(found, expected):
    assert torch.equal(found.codes.view(torch.uint8), expected.codes.view(torch.uint8))
    assert torch.equal(found.scale, expected.scale)
    assert (found.depth, found.dtype) == (expected.depth, expected.dtype)


def test_floats_without_number_stay_so():
    x = torch.randn(3, 64, device=DEVICE).half()
    x[1, 5] = torch.nan
    wide = round_rows(x, 0, overlapped=False).widened()
    assert wide[1, 5].isnan()
    assert wide[[0, 2]].isfinite().all()


def test_what_does_not_fit_is_refused():
    x, weight, _ = operands(2, 64, 256, (128, 128))
    with pytest.raises(LayoutError, match="needs a Scaled weight"):
        pack_scaled(Dense(x))
    with pytest.raises(ShapeError, match="does not consist of blocks"):
        vector(x, weight.weight, None, Cut(1, 64, 4), scales_of(weight))
    with pytest.raises(ShapeError, match="spans blocks of 128 columns"):
        tiling = Tiling(16, 32, 256, num_warps=4, num_stages=2)
        stream(x, weight.weight, None, WORKSPACE, tiling, scales_of(weight))
