"""Plain weights that become small numbers while they are loaded."""

from pathlib import Path

import numpy
import pytest
import torch
from aphrodite_kernels.layouts import Dense, Lookup, Microscaled, Scaled
from aphrodite_kernels.layouts.microscaled import E2M1
from aphrodite_quant import FormatError
from aphrodite_quant.quantization import find_quantization, quantization_names
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden" / "online.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_integers_err_by_half_a_step(dtype):
    plain = torch.randn(20, 64).to(dtype)
    plain[3] = 0
    packed = find_quantization("int8").quantize(Dense(plain))
    assert isinstance(packed, Scaled) and packed.per_row and packed.weight.dtype == torch.int8
    step = plain.float().abs().amax(1, keepdim=True) / 127
    assert ((packed.dequantize() - plain.float()).abs() <= 0.501 * step).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_floats_are_the_nearest_that_there_are(dtype):
    plain = (torch.randn(20, 128) * 10 ** torch.linspace(-6, 6, 20)[:, None]).to(dtype)
    plain[3] = 0
    packed = find_quantization("mxfp4").quantize(Dense(plain))
    assert isinstance(packed, Microscaled)
    assert packed.nbytes == 20 * 128 * (0.5 + 1 / 32)
    scale = packed.scale.float().repeat_interleave(32, 1)
    error = (packed.dequantize() - plain.float()).abs()
    nearest = (scale[..., None] * torch.tensor(E2M1) - plain.float()[..., None]).abs().amin(-1)
    torch.testing.assert_close(error, nearest, rtol=1e-5, atol=0)
    largest = plain.float().unflatten(1, (-1, 32)).abs().amax(2)[largest_rows()]
    steps = largest / packed.scale.float()[largest_rows()]
    assert ((steps >= 4) & (steps < 8)).all()


def largest_rows():
    """All but the row of zeros."""
    return [row for row in range(20) if row != 3]


@pytest.mark.parametrize("name", quantization_names())
def test_a_row_becomes_the_same_in_any_company(name, monkeypatch):
    plain = Dense((torch.randn(50, 128) * torch.linspace(0.1, 9, 50)[:, None]).bfloat16())
    whole = find_quantization(name).quantize(plain)
    monkeypatch.setattr("aphrodite_quant.online_groups._SLAB", 7 * 128)
    slabs = find_quantization(name).quantize(plain)
    assert type(slabs) is type(whole) and slabs.nbytes == whole.nbytes
    assert torch.equal(slabs.dequantize(), whole.dequantize())


def test_a_weight_is_never_widened_whole(monkeypatch):
    """What one call makes of a slab is all there is of it in float32."""
    seen = []
    wide = Tensor.float
    monkeypatch.setattr(Tensor, "float", lambda self: seen.append(self.numel()) or wide(self))
    monkeypatch.setattr("aphrodite_quant.online_groups._SLAB", 1024)
    for name in quantization_names():
        find_quantization(name).quantize(Dense(torch.randn(64, 128).bfloat16()))
        assert seen and max(seen) <= 1024, name
        seen.clear()


GROUPS = {"int4": 64, "nf4": 64, "mxfp4": 32, "mxfp8": 32, "nvfp4": 16, "fp6": 4}


@pytest.mark.parametrize(("name", "group"), GROUPS.items())
def test_columns_that_do_not_divide_are_refused(name, group):
    message = (
        rf"\[4, {group + group // 2}\] cannot become {name}: .* multiple of {group}; choose fp8"
    )
    with pytest.raises(FormatError, match=message):
        find_quantization(name).quantize(Dense(torch.randn(4, group + group // 2)))


@pytest.mark.parametrize("name", ["fp8", "int4", "mxfp4", "mxfp8", "nf4", "nvfp4"])
def test_weights_become_what_another_tool_makes_of_them(name):
    """Of a matrix with rows of different sizes, one of zeros and a group of one sign; exactly."""
    golden = load_file(GOLDEN)
    packed = find_quantization(name).quantize(Dense(golden["weight"]))
    assert torch.equal(packed.dequantize(), golden[name])


def test_floats_of_six_bits_are_the_nearest_that_there_are():
    plain = torch.randn(20, 64, generator=torch.Generator().manual_seed(1))
    plain[3] = 0
    packed = find_quantization("fp6").quantize(Dense(plain))
    assert isinstance(packed, Lookup) and packed.bits == 6
    mantissa = numpy.arange(4) / 4
    sizes = [mantissa / 4, *((1 + mantissa) * 2.0 ** (power - 3) for power in range(1, 8))]
    numbers = numpy.concatenate(sizes)
    assert numbers.max() == 28 and len(set(numbers)) == 32
    numbers = numpy.concatenate([numbers, -numbers])
    wide = plain.double().numpy()
    scale = numpy.abs(wide).max(1, keepdims=True) / 28
    nearest = numpy.abs(wide[..., None] - numbers * scale[..., None]).min(2)
    found = numpy.abs(packed.dequantize().double().numpy() - wide)
    numpy.testing.assert_allclose(found, nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", sorted(GROUPS | {"fp8": 1, "int8": 1}))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_quantisation_takes_what_it_says_and_no_zeros_go_wrong(name, dtype):
    assert name in quantization_names()
    quantization = find_quantization(name)
    zeros = quantization.quantize(Dense(torch.zeros(2, 128, dtype=dtype)))
    assert torch.equal(zeros.dequantize(), torch.zeros(2, 128))
    plain = torch.randn(256, 1024).to(dtype)
    packed = quantization.quantize(Dense(plain))
    assert packed.nbytes == pytest.approx(plain.numel() * quantization.PER_WEIGHT, rel=0.02)
    error = (packed.dequantize() - plain.float()).norm() / plain.float().norm()
    assert error < (0.04 if "8" in name else 0.07 if "6" in name else 0.13)
