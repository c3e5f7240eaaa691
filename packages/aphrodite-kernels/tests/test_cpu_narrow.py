"""Narrow floats on the compiled CPU backend: eight bits, and tables of sixteen numbers."""

import pytest
import torch
from aphrodite_kernels.backends.cpu.library import LEVELS, find_library
from aphrodite_kernels.backends.cpu.narrow import Narrow, narrow_matmul_on, narrow_rows_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.errors import KernelError, ShapeError
from aphrodite_kernels.layouts import Lookup, Microscaled, Scaled
from aphrodite_kernels.testing.kinds.scaled import random_scaled

pytestmark = pytest.mark.skipif(
    find_library() is None, reason="the compiled CPU library was not built"
)


@pytest.fixture(params=LEVELS[:3], scope="module")
def level(request):
    """A runtime of each instruction set that these ops know and this machine has."""
    made = Runtime(2, request.param)
    if made.level != request.param:
        pytest.skip(f"this processor has no {request.param}")
    return made


def seeded():
    return torch.Generator().manual_seed(5)


def floats(rows, columns, block):
    return random_scaled(rows, columns, block, seeded())


def micro(rows, columns):
    elements = (100 * torch.randn(rows, columns, generator=seeded())).clamp(-448, 448)
    scale = (2 * torch.rand(rows, columns // 16, generator=seeded())).to(torch.float8_e4m3fn)
    factors = torch.rand(rows, 1, generator=seeded()) / 100
    return Microscaled(elements.to(torch.float8_e4m3fn), scale, 16, factors)


def tables(rows, columns, group, count):
    codes = torch.randint(256, (rows, columns // 2), generator=seeded()).to(torch.uint8)
    table = torch.randn(count, 16, generator=seeded())
    if group is None:
        return Lookup(codes, table, None, columns)
    return Lookup(codes, table, torch.rand(rows, columns // group, generator=seeded()), group)


WEIGHTS = {
    "channel": floats(35, 577, (1, 577)),
    "tensor": floats(70, 4500, (70, 4500)),
    "block": floats(130, 2300, (128, 128)),
    "odd blocks": floats(9, 100, (4, 7)),
    "one": floats(1, 1, (1, 1)),
    "microscaled": micro(33, 2080),
    "shared table": tables(34, 4160, 64, 1),
    "rows' tables": tables(18, 2070, None, 18),
    "short groups": tables(5, 60, 6, 5),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_products_and_look_ups(level, name):
    source = WEIGHTS[name]
    weight, exact = Narrow.of(source), source.dequantize()
    height, depth = exact.shape
    x = torch.randn(70, depth + 3, generator=seeded())[:, 3:]
    bias = torch.randn(height, generator=seeded())
    multiply = narrow_matmul_on(level)
    y = multiply(x, weight, bias)
    expected = x.double() @ exact.double().T + bias
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * depth**0.5)
    for start, count in ((0, 1), (3, 2), (5, 3), (1, 37), (64, 6)):
        rows = slice(start, start + count)
        assert torch.equal(multiply(x[rows], weight, bias), y[rows])
    tokens = torch.tensor([height - 1, 0, height // 2, 0], dtype=torch.int32)
    found = narrow_rows_on(level)(tokens, weight, 24.0)
    torch.testing.assert_close(found, exact[tokens.long()] * 24, rtol=1e-6, atol=0)


def test_every_float_widens_exactly(level):
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(torch.float8_e4m3fn)
    source = Scaled(codes.view(4, 64), torch.ones(4, 1), (1, 64))
    tokens = torch.arange(4, dtype=torch.int32)
    found = narrow_rows_on(level)(tokens, Narrow.of(source), 1.0)
    assert torch.equal(found.nan_to_num(7.5), codes.float().view(4, 64).nan_to_num(7.5))
    assert found.isnan().sum() == 2


def test_codes_stay_where_they_are():
    for source in WEIGHTS.values():
        codes = next(iter(vars(source).values()))
        assert Narrow.of(source).codes.data_ptr() == codes.data_ptr()


def test_parts_and_stacks_are_narrow():
    source = floats(64, 256, (32, 128))
    weight = Narrow.of(source)
    parts = [weight.shard(0, rank, 2) for rank in range(2)]
    assert torch.equal(Narrow.stack(parts).dequantize(), source.dequantize())
    index = torch.tensor([63, 0])
    assert torch.equal(weight.rows(index).dequantize(), source.dequantize()[index])


def test_other_weights_are_not_narrow():
    integers = random_scaled(4, 32, (1, 32), seeded(), torch.int8)
    assert Narrow.of(integers) is None
    assert Narrow.of(tables(4, 33 * 2, 3, 1)) is None


def test_wrong_arguments_are_refused(level):
    weight = Narrow.of(WEIGHTS["channel"])
    with pytest.raises(ShapeError, match="x must be"):
        narrow_matmul_on(level)(torch.zeros(2, 576), weight)
    with pytest.raises(ShapeError, match="bias must be"):
        narrow_matmul_on(level)(torch.zeros(2, 577), weight, torch.zeros(34))
    for token in (-1, 35):
        with pytest.raises(KernelError, match=f"row {token} of a weight of 35 rows"):
            narrow_rows_on(level)(torch.tensor([token], dtype=torch.int32), weight, 1.0)
