"""Plain weights that become small numbers while they are loaded."""

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Microscaled, Scaled
from aphrodite_kernels.layouts.microscaled import E2M1
from aphrodite_quant import FormatError
from aphrodite_quant.quantization import find_quantization


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


def test_columns_that_do_not_divide_are_refused():
    with pytest.raises(FormatError, match=r"\[4, 48\] cannot become mxfp4"):
        find_quantization("mxfp4").quantize(Dense(torch.randn(4, 48)))
