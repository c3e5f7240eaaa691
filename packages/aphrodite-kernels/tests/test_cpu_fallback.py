"""Layouts without compiled kernels on the CPU backend."""

from dataclasses import dataclass, field

import pytest
import torch
from aphrodite_kernels import Dense
from aphrodite_kernels.backends import cpu
from aphrodite_kernels.layouts.rotated import Rotated, Rotation
from aphrodite_kernels.testing.kinds import weight_kinds

if cpu.obstacle() is not None:
    pytest.skip(f"the CPU backend cannot run: {cpu.obstacle()}", allow_module_level=True)


@pytest.fixture(scope="module")
def backend():
    return cpu.backend_on(torch.device("cpu"), cpu.Runtime(1))


@dataclass(frozen=True, eq=False)
class Watched(Dense):
    """Notes how much of it is dequantised at once."""

    sizes: list[int] = field(default_factory=list)

    def rows(self, index):
        return Watched(self.weight[index], self.sizes)

    def dequantize(self, dtype=torch.float32):
        self.sizes.append(self.weight.numel())
        return super().dequantize(dtype)


def test_a_product_dequantises_a_slab_at_a_time(backend):
    generator = torch.Generator().manual_seed(0)
    weight = Watched(torch.randn(5000, 1024, generator=generator))
    x, bias = torch.randn(3, 1024, generator=generator), torch.randn(5000, generator=generator)
    y = backend.matmul_for(weight)(x, weight, bias)
    expected = x.double() @ weight.weight.double().T + bias
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-3)
    assert sum(weight.sizes) == weight.weight.numel()
    assert max(weight.sizes) * 4 == 4 << 20


@pytest.mark.parametrize("base", [None, 3])
def test_a_rotated_weight_is_decoded_once_in_slabs(backend, base):
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    order = base or 1
    inner = Watched(normal(1024 * order, 2048 * order) / 50)
    left, right = (
        Rotation(normal(channels), size * order, base and torch.linalg.qr(normal(base, base)).Q)
        for channels, size in ((1000, 1024), (1999, 2048))
    )
    weight, x, bias = Rotated(inner, left, right), normal(3, 1999), normal(1000)
    picked = torch.tensor([999, 0, 5])
    for made, wanted in ((weight, bias), (weight.rows(picked), bias[picked])):
        expected = x.double() @ made.dequantize().double().T + wanted
        inner.sizes.clear()
        y = backend.matmul_for(made)(x, made, wanted)
        torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-3)
        assert sum(inner.sizes) == inner.weight.numel()
        assert max(inner.sizes) <= 1 << 20


def test_a_look_up_dequantises_the_wanted_rows(backend):
    weight = Watched(torch.randn(5000, 64))
    tokens = torch.tensor([4999, 3, 3], dtype=torch.int32)
    rows = backend.embed_for(weight)(tokens, weight, 2.0)
    assert torch.equal(rows, 2 * weight.weight[tokens.long()])
    assert weight.sizes == [3 * 64]


@pytest.mark.parametrize("kind", weight_kinds(), ids=lambda kind: kind.label)
def test_slabs_of_any_layout_make_the_whole(backend, kind):
    weight = kind.draw(300, 1 << 13, torch.Generator().manual_seed(1))
    x = torch.randn(2, 1 << 13)
    expected = x.double() @ weight.dequantize().double().T
    y = backend.any_matmul(x, weight)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-3)
