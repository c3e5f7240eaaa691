"""Trellises as the records of the Triton backend."""

import pytest
import torch
from aphrodite_kernels.backends.triton import create, device_obstacle
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts.hadamard import hadamard
from aphrodite_kernels.layouts.trellis import Trellis, TrellisCodebook
from aphrodite_kernels.testing.case import Rounding, assert_product_close
from aphrodite_kernels.testing.kinds.trellis import RATES, random_trellis

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.ggml import PartWorkspace
from aphrodite_kernels.backends.triton.trellis import TrellisFields
from aphrodite_kernels.backends.triton.trellis.dequantize import decode
from aphrodite_kernels.backends.triton.trellis.matmul import by_lanes, by_parts
from aphrodite_kernels.backends.triton.trellis.product import Shape
from aphrodite_kernels.backends.triton.trellis.turn import turn_inputs, turn_outputs

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPE = torch.float16


def drawn(rows, columns, bits, codebook=TrellisCodebook.MUL1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return random_trellis(rows, columns, bits, codebook, generator).to(DEVICE)


@pytest.mark.parametrize(("bits", "codebook"), RATES)
def test_every_number_of_bits_decodes_to_what_its_stream_means(bits, codebook):
    weight = drawn(128, 256, bits, codebook)
    fields = TrellisFields.of(weight)
    assert torch.equal(fields.parts()[0].trellis, weight.trellis)
    found = torch.empty(64, 256, dtype=DTYPE, device=DEVICE)
    decode(fields, 64, found)
    assert torch.equal(found, weight.decode()[64:])


@pytest.mark.parametrize("bits", [1, 1.5, 2.5, 3, 3.5, 7, 8])
def test_few_rows_of_every_width_of_fields(bits):
    weight = drawn(128, 384, bits)
    x = torch.randn(3, 384, device=DEVICE).to(DTYPE)
    found = by_lanes(x, TrellisFields.of(weight), None, Shape(2, 1, 1), overlapped=False)
    dense = weight.dequantize()
    assert_product_close(found, (x.float() @ dense.T).to(DTYPE), x, dense, Rounding.NONE)


def test_transforms_are_exact_to_float32():
    x = torch.randn(9, 256, device=DEVICE)
    suh = torch.rand(2, 256, device=DEVICE).half() + 0.5
    found = turn_inputs(x, suh, torch.float32, overlapped=False)
    expected = hadamard((x[None] * suh[:, None]).view(2, 9, 2, 128)).view(2, 9, 256) / 8
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    found = turn_outputs(x, suh[0], None, torch.float32, overlapped=False)
    expected = hadamard(x.view(9, 2, 128)).view(9, 256) * suh[0] * 8
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [2, 100])
def test_trellises_of_one_input_are_one_product(rows):
    parts = [drawn(extent, 128, 4, seed=extent) for extent in (256, 128, 128)]
    ops = create(DEVICE, threads=None, dtype=DTYPE)
    prepared = [ops.prepare(part) for part in parts]
    stacked = TrellisFields.stack([TrellisFields.stack(prepared[:2]), prepared[2]])
    x, bias = torch.randn(rows, 128, device=DEVICE).to(DTYPE), torch.randn(512, device=DEVICE)
    found = ops.matmul_for(stacked)(x, stacked, bias).split([256, 128, 128], 1)
    alone = [
        ops.matmul_for(part)(x, part, own)
        for part, own in zip(prepared, bias.split([256, 128, 128]), strict=True)
    ]
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    dense = torch.cat([part.dequantize() for part in parts])
    assert torch.equal(stacked.dequantize(), dense)
    with pytest.raises(LayoutError, match="divide them, then stack"):
        stacked.shard(0, 0, 2)


def test_what_differs_does_not_stack():
    fields = [TrellisFields.of(drawn(128, 128, bits)) for bits in (3, 4)]
    with pytest.raises(LayoutError, match="different kinds"):
        TrellisFields.stack(fields)
    picked = TrellisFields.of(drawn(100, 128, 4))
    with pytest.raises(LayoutError, match="picked rows"):
        TrellisFields.stack([picked, fields[1]])


def test_padding_is_cut_off():
    full = drawn(256, 256, 4)
    weight = full.cropped(200, 130)
    x = torch.randn(4, 130, device=DEVICE).to(DTYPE)
    dense = weight.dequantize()
    expected = (x.float() @ dense.T).to(DTYPE)
    fields = TrellisFields.of(weight)
    found = by_lanes(x, fields, None, Shape(2, 1, 1), overlapped=False)
    assert_product_close(found, expected, x, dense, Rounding.NONE)
    found = by_parts(x, fields, None, PartWorkspace(DEVICE))
    assert_product_close(found, expected, x, dense, Rounding.NONE)


def test_large_inputs_do_not_overflow():
    weight = drawn(128, 128, 4)
    x = torch.full((1, 128), 30000.0, device=DEVICE).to(DTYPE)
    small = Trellis(weight.trellis, weight.suh, weight.svh / 1024, weight.codebook)
    found = by_lanes(x, TrellisFields.of(small), None, Shape(1, 1, 1), overlapped=False)
    dense = small.dequantize()
    assert_product_close(found, (x.float() @ dense.T).to(DTYPE), x, dense, Rounding.NONE)
