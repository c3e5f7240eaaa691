"""Products with trellises: every codebook and width, on each instruction set, in any company."""

import pytest
import torch
from aphrodite_kernels import LayoutError
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.backends.cpu.library import LEVELS
from aphrodite_kernels.backends.cpu.trellis import Unrolled
from aphrodite_kernels.layouts.trellis import Trellis, TrellisCodebook
from aphrodite_kernels.testing.kinds.trellis import RATES, random_trellis

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=LEVELS[:3])
def backend(request):
    return cpu.backend_on(CPU, cpu.Runtime(2, request.param))


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(bits, codebook, rows=256, columns=384):
    generator = torch.Generator().manual_seed(int(2 * bits))
    return random_trellis(rows, columns, bits, codebook, generator)


@pytest.mark.parametrize(("bits", "codebook"), RATES)
def test_numbers_are_those_of_the_layout(backend, bits, codebook):
    weight = backend.prepare(made(bits, codebook))
    assert isinstance(weight, Unrolled)
    x = drawn(3, 384)
    found = backend.matmul_for(weight)(x, weight)
    expected = (x.double() @ weight.dequantize(torch.float64).T).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5 * float(expected.std()))


def test_padding_is_neither_read_nor_written(backend):
    whole = made(4, TrellisCodebook.MUL1)
    weight = backend.prepare(whole.cropped(200, 300))
    assert (weight.out_features, weight.in_features) == (200, 300)
    x = drawn(70, 400)[:, 50:350]
    bias = drawn(200, seed=1)
    found = backend.matmul_for(weight)(x, weight, bias)
    expected = x @ whole.dequantize()[:200, :300].T + bias
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


def test_more_rows_than_lie_in_memory_at_once(backend):
    weight = backend.prepare(made(2, TrellisCodebook.MCG, 128, 128))
    product = backend.matmul_for(weight)
    x = drawn(1100, 128)
    found = product(x, weight)
    assert torch.equal(found[511:514], product(x[511:514], weight))
    assert torch.equal(found[1099:], product(x[1099:], weight))


def test_parts_of_it_stay_what_they_are(backend):
    weight = made(3, TrellisCodebook.INST3)
    prepared, dense = backend.prepare(weight), weight.dequantize()
    torch.testing.assert_close(prepared.shard(0, 1, 2).dequantize(), dense[128:])
    torch.testing.assert_close(prepared.rows(torch.arange(9)).dequantize(), dense[:9])
    twice = type(prepared).stack([prepared, prepared])
    x = drawn(2, 384)
    once = backend.matmul_for(prepared)(x, prepared)
    assert torch.equal(backend.matmul_for(twice)(x, twice), once.repeat(1, 2))
    with pytest.raises(LayoutError, match="pick rows before"):
        prepared.rows(torch.tensor([4, 2]))
    with pytest.raises(LayoutError, match="cannot be sent to"):
        prepared.to(torch.device("meta"))


def test_rows_in_another_order_take_the_slow_way(backend):
    weight = made(4, TrellisCodebook.MCG)
    picked = weight.rows(torch.tensor([7, 200, 3]))
    prepared = backend.prepare(picked)
    assert isinstance(prepared, Trellis)
    x = drawn(2, 384)
    expected = x @ weight.dequantize()[[7, 200, 3]].T
    torch.testing.assert_close(
        backend.matmul_for(prepared)(x, prepared), expected, rtol=1e-4, atol=1e-3
    )
