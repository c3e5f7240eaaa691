"""Products, packing and look-ups of the compiled CPU backend.

What a product computes is written out in float64 here: `quantized` rounds activations to int8 as
the kernels do, and the rest is a matrix product with the dequantised weight.
"""

from functools import partial

import pytest
import torch
from aphrodite_kernels.backends.cpu import tile_pack
from aphrodite_kernels.backends.cpu.library import LEVELS, find_library
from aphrodite_kernels.backends.cpu.matmul import dense_matmul_on, tiled_matmul_on
from aphrodite_kernels.backends.cpu.runtime import Runtime
from aphrodite_kernels.backends.cpu.tile_pack import pack_tiles_on
from aphrodite_kernels.backends.cpu.tiled import Tiled, tiled_rows_on
from aphrodite_kernels.errors import KernelError, LayoutError, ShapeError
from aphrodite_kernels.layouts import Dense, GgmlType, Grouped
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing import random_blocks
from aphrodite_kernels.testing.kinds import weight_kinds
from aphrodite_kernels.testing.kinds.grouped import random_grouped

pytestmark = pytest.mark.skipif(
    find_library() is None, reason="the compiled CPU library was not built"
)

TYPES = sorted(DECODERS)
BITS = {
    GgmlType.TQ1_0: 2.13,  # five trits in a byte become ten bits
    GgmlType.Q1_0: 2.25,
    GgmlType.IQ1_S: 3.32,  # points of grids become their coordinates
    GgmlType.IQ1_M: 3.57,
    GgmlType.IQ2_XXS: 3.32,
    GgmlType.IQ2_XS: 3.57,
    GgmlType.IQ2_S: 3.57,
    GgmlType.IQ3_XXS: 4.32,
    GgmlType.IQ3_S: 4.32,
    GgmlType.MXFP4: 5.0,  # scales become float32
    GgmlType.NVFP4: 6.0,
}
"""Of a weight in tiles, where these are larger than the blocks."""
CODED = [
    kind for kind in weight_kinds() if kind.label.startswith(("grouped", "mxfp4", "nvfp4", "int8"))
]
"""Other layouts that have tiles, all of them at 768 columns."""
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def runtime():
    return Runtime(2)


@pytest.fixture(params=LEVELS, scope="module")
def level(request):
    """A runtime of each instruction set that this machine has."""
    made = Runtime(2, request.param)
    if made.level != request.param:
        pytest.skip(f"this processor has no {request.param}")
    return made


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks_of(kind, rows=57, blocks=19):
    """A random weight; 19 blocks of 32 are a strip and a bit, so are 3 of 256."""
    columns = blocks * 32 if kind.block_size == 32 else 768
    return random_blocks(kind, rows, columns, torch.Generator().manual_seed(int(kind)))


def coded_of(kind, rows=57):
    return kind.draw(rows, 768, torch.Generator().manual_seed(len(kind.label)))


def quantized(x):
    """Activations rounded to int8 times a scale per block of 32, in float64; and the scales."""
    parts = x.view(len(x), -1, 32)
    peak = parts.abs().amax(-1, keepdim=True)
    codes = (parts * (127 / peak).nan_to_num(posinf=0)).round()
    scales = peak / 127
    return (codes.double() * scales.double()).view_as(x), scales.double()


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_packing_keeps_every_weight_exactly(runtime, kind):
    weight = blocks_of(kind)
    tiled = pack_tiles_on(runtime)(weight)
    assert (tiled.in_features, tiled.out_features) == (weight.in_features, 57)
    torch.testing.assert_close(tiled.dequantize(), weight.dequantize(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.label)
def test_packing_other_layouts_keeps_every_weight(runtime, kind):
    weight = coded_of(kind)
    tiled = pack_tiles_on(runtime)(weight)
    assert isinstance(tiled, Tiled)
    assert (tiled.in_features, tiled.out_features) == (768, 57)
    # Exactly, but for a minimum: the product of scale and zero point is rounded once.
    off = 1e-6 if isinstance(weight, Grouped) and weight.zero is not None else 0
    torch.testing.assert_close(tiled.dequantize(), weight.dequantize(), rtol=0, atol=off)


def test_long_groups_have_one_scale(runtime):
    generator = torch.Generator().manual_seed(4)
    weight = random_grouped(64, 640, generator, bits=4, group=128, zero=True, ordered=True)
    assert pack_tiles_on(runtime)(weight).nbytes == weight.nbytes


def test_a_weight_of_several_slabs_is_packed_whole(runtime, monkeypatch):
    monkeypatch.setattr(tile_pack, "_SLAB", 768 * 16 * 2)
    for kind in CODED:
        weight = coded_of(kind, rows=75)
        torch.testing.assert_close(
            pack_tiles_on(runtime)(weight).dequantize(), weight.dequantize(), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(("columns", "group"), [(80, 16), (72, 24), (64, 8)])
def test_groups_that_fit_no_block_stay_as_they_are(runtime, columns, group):
    generator = torch.Generator().manual_seed(4)
    weight = random_grouped(8, columns, generator, bits=4, group=group, zero=True, ordered=True)
    assert pack_tiles_on(runtime)(weight) is weight


def test_an_order_that_names_a_column_twice_is_refused(runtime):
    generator = torch.Generator().manual_seed(4)
    weight = random_grouped(8, 64, generator, bits=4, zero=True, ordered=False)
    weight.columns[0] = weight.columns[1]
    with pytest.raises(LayoutError, match="does not name each of them once"):
        pack_tiles_on(runtime)(weight)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_packing_takes_hardly_more_bytes(runtime, kind):
    weight = blocks_of(kind, rows=64)
    own = weight.nbytes * 8 / (64 * weight.in_features)
    bits = pack_tiles_on(runtime)(weight).nbytes * 8 / (64 * weight.in_features)
    assert own <= bits <= BITS.get(kind, 1.04 * own)


def test_packing_on_each_level_gives_the_same_bytes(runtime, level):
    for weight in (*(blocks_of(kind, rows=33) for kind in TYPES), *map(coded_of, CODED)):
        ours, theirs = pack_tiles_on(level)(weight), pack_tiles_on(runtime)(weight)
        assert torch.equal(ours.codes, theirs.codes), ours.format
        assert torch.equal(ours.scales[:2], theirs.scales[:2]), ours.format


@pytest.mark.parametrize("label", ["float8_by_channel", "mxfp8"])
def test_floats_have_no_tiles(runtime, label):
    (weight,) = [coded_of(kind) for kind in weight_kinds() if kind.label == label]
    assert pack_tiles_on(runtime)(weight) is weight


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_product_is_the_int8_product_in_float64(level, kind):
    weight = blocks_of(kind)
    exact = weight.dequantize().double()
    x, bias = random(11, weight.in_features), random(57, seed=1)
    rounded, scales = quantized(x)
    y = tiled_matmul_on(level)(x, pack_tiles_on(level)(weight), bias).double()
    torch.testing.assert_close(y, rounded @ exact.T + bias, rtol=1e-5, atol=2e-5)
    # No activation is off by more than half a step of its block.
    sums = exact.abs().view(57, -1, 32).sum(-1)
    bound = 0.5 * scales[..., 0] @ sums.T
    assert ((y - x.double() @ exact.T - bias).abs() <= bound * 1.0001 + 2e-5).all()


@pytest.mark.parametrize("kind", CODED, ids=lambda kind: kind.label)
def test_product_of_other_layouts_is_the_int8_product_in_float64(level, kind):
    weight = coded_of(kind)
    order = weight.columns if isinstance(weight, Grouped) else None
    order = torch.arange(768) if order is None else order
    x, bias = random(11, 768), random(57, seed=1)
    rounded, _ = quantized(x[:, order])
    multiply, packed = tiled_matmul_on(level), pack_tiles_on(level)(weight)
    y = multiply(x, packed, bias)
    expected = rounded @ weight.dequantize()[:, order].double().T + bias
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=5e-5)
    assert torch.equal(torch.cat([multiply(row, packed, bias) for row in x.split(1)]), y)
    tokens = torch.tensor([56, 0, 17, 0], dtype=torch.int32)
    rows = tiled_rows_on(level)(tokens, packed, 24.0)
    torch.testing.assert_close(rows, packed.dequantize()[tokens.long()] * 24, rtol=0, atol=0)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_a_row_does_not_depend_on_its_company(runtime, kind):
    multiply, weight = tiled_matmul_on(runtime), pack_tiles_on(runtime)(blocks_of(kind))
    x = random(200, weight.in_features)
    together = multiply(x, weight)
    for rows in range(1, 41):
        assert torch.equal(multiply(x[:rows], weight), together[:rows]), rows
    cuts = torch.randint(1, 60, (12,), generator=torch.Generator().manual_seed(3)).cumsum(0)
    parts = torch.tensor_split(x, cuts[cuts < 200])
    assert torch.equal(torch.cat([multiply(part, weight) for part in parts]), together)


def test_a_row_does_not_depend_on_its_company_on_any_level(level):
    for kind in (GgmlType.Q4_1, GgmlType.Q8_0, GgmlType.Q2_K, GgmlType.Q6_K):
        multiply, weight = tiled_matmul_on(level), pack_tiles_on(level)(blocks_of(kind))
        x = random(19, weight.in_features)
        alone = torch.cat([multiply(row, weight) for row in x.split(1)])
        assert torch.equal(multiply(x, weight), alone), kind.name


def test_threads_do_not_change_a_bit():
    weight = pack_tiles_on(Runtime(1))(blocks_of(GgmlType.Q4_K, rows=300))
    x = random(150, weight.in_features)
    first, *others = [tiled_matmul_on(Runtime(threads))(x, weight) for threads in (1, 2, 3)]
    assert all(torch.equal(first, other) for other in others)


def test_strided_rows_are_read_in_place(runtime):
    weight = pack_tiles_on(runtime)(blocks_of(GgmlType.Q4_1))
    wide = random(9, weight.in_features + 40)
    x = wide[:, 24 : 24 + weight.in_features]
    multiply = tiled_matmul_on(runtime)
    assert torch.equal(multiply(x, weight), multiply(x.contiguous(), weight))


def test_extreme_activations(runtime):
    weight = pack_tiles_on(runtime)(blocks_of(GgmlType.Q4_1))
    x = torch.zeros(5, weight.in_features)
    x[1] = 1e-38
    x[2, 40] = torch.inf
    x[3, 40] = torch.nan
    x[4] = random(weight.in_features) * 1e30
    y = tiled_matmul_on(runtime)(x, weight)
    assert (y[:2] == 0).all()
    assert y[2:4].isnan().all()
    expected = quantized(x[4:])[0] @ weight.dequantize().double().T
    torch.testing.assert_close(y[4:].double(), expected, rtol=1e-4, atol=1e26)


def test_no_rows(runtime):
    weight = pack_tiles_on(runtime)(blocks_of(GgmlType.Q8_0))
    assert tiled_matmul_on(runtime)(torch.empty(0, weight.in_features), weight).shape == (0, 57)


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)
def test_look_up_reads_the_packed_rows(level, kind):
    weight = blocks_of(kind)
    tokens = torch.tensor([56, 0, 17, 0], dtype=torch.int32)
    rows = tiled_rows_on(level)(tokens, pack_tiles_on(level)(weight), 24.0)
    torch.testing.assert_close(rows, weight.dequantize()[tokens.long()] * 24, rtol=0, atol=0)


@pytest.mark.parametrize("token", [-1, 57])
def test_look_up_beyond_the_weight_is_an_error(runtime, token):
    weight = pack_tiles_on(runtime)(blocks_of(GgmlType.Q8_0))
    with pytest.raises(KernelError, match=f"row {token} of a weight of 57 rows"):
        tiled_rows_on(runtime)(torch.tensor([token], dtype=torch.int32), weight, 1.0)


def test_narrow_shares_memory_and_gives_those_columns(runtime):
    weight = pack_tiles_on(runtime)(blocks_of(GgmlType.Q6_K))
    x = random(3, weight.in_features)
    multiply = tiled_matmul_on(runtime)
    part = weight.narrow(16, 57)
    assert part.codes.data_ptr() == weight.codes[1].data_ptr()
    assert torch.equal(multiply(x, part), multiply(x, weight)[:, 16:])
    with pytest.raises(LayoutError, match="whole tiles of 16"):
        weight.narrow(8, 57)


def test_split_and_stack(runtime):
    whole = pack_tiles_on(runtime)(blocks_of(GgmlType.Q5_0, rows=64))
    parts = [whole.shard(0, rank, 2) for rank in range(2)]
    assert torch.equal(Tiled.stack(parts).dequantize(), whole.dequantize())
    with pytest.raises(LayoutError, match="split before it is packed"):
        whole.shard(1, 0, 2)
    with pytest.raises(LayoutError, match="split before it is packed"):
        whole.shard(0, 0, 8)
    odd = pack_tiles_on(runtime)(blocks_of(GgmlType.Q5_0))
    with pytest.raises(LayoutError, match="part-filled tile"):
        Tiled.stack([odd, whole])
    with pytest.raises(LayoutError, match="embed"):
        whole.rows(torch.tensor([0]))


def test_other_layouts_stack_if_their_columns_are_in_one_order(runtime):
    generator = torch.Generator().manual_seed(4)
    draw = partial(random_grouped, 32, 64, generator, bits=4, zero=True)
    one, other, plain = (
        pack_tiles_on(runtime)(draw(ordered=ordered)) for ordered in (False, False, True)
    )
    both = Tiled.stack([one, one]).dequantize()
    assert torch.equal(both, torch.cat((one.dequantize(), one.dequantize())))
    for wrong in (other, plain):
        with pytest.raises(LayoutError, match="different orders"):
            Tiled.stack([one, wrong])


def test_wrong_activations_are_refused(runtime):
    weight = pack_tiles_on(runtime)(blocks_of(GgmlType.Q8_0))
    for x in (random(2, 96), random(2, weight.in_features).bfloat16()):
        with pytest.raises(ShapeError, match="x must be"):
            tiled_matmul_on(runtime)(x, weight)
    with pytest.raises(ShapeError, match="bias must be"):
        tiled_matmul_on(runtime)(random(2, weight.in_features), weight, random(56))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "depth"), [(35, 577), (18, 4500), (3, 7), (1, 1)])
def test_dense_product(level, dtype, width, depth):
    weight, bias = Dense(random(width, depth, seed=1).to(dtype)), random(width, seed=2)
    x = random(70, depth + 3)[:, 3:]
    multiply = dense_matmul_on(level)
    y = multiply(x, weight, bias)
    expected = x.double() @ weight.weight.double().T + bias
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * depth**0.5)
    for start, count in ((0, 1), (3, 2), (5, 3), (1, 37), (64, 6)):
        rows = slice(start, start + count)
        assert torch.equal(multiply(x[rows], weight, bias), y[rows])


def test_dense_columns_are_a_slice_of_the_weight(runtime):
    weight, x = random(50, 90, seed=1), random(5, 64)
    part = Dense(weight[7:31, 13:77])
    expected = x.double() @ part.weight.double().T
    torch.testing.assert_close(
        dense_matmul_on(runtime)(x, part).double(), expected, rtol=1e-5, atol=1e-5
    )
