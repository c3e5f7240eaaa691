"""Layouts of codes and scales as the records of the Triton backend."""

from dataclasses import replace

import pytest
import torch
from aphrodite_kernels.backends.triton import device_obstacle
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Grouped, Lookup, Microscaled
from aphrodite_kernels.testing.kinds.microscaled import random_six_bits

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.ggml import (
    Fragments,
    pack_grouped,
    pack_lookup,
    pack_microscaled,
)


def grouped(bits, group, *, zero, columns=1152, rows=40, dtype=torch.float16):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(1 << bits, (rows, columns), generator=generator).to(torch.uint8)
    shape = (rows, columns // group)
    scale = torch.rand(shape, generator=generator).to(dtype)
    points = torch.rand(shape, generator=generator).mul((1 << bits) - 1).to(dtype)
    return Grouped.pack(codes, scale, points if zero else None, bits, group)


@pytest.mark.parametrize("zero", [False, True], ids=["symmetric", "zeros"])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("group", [16, 32, 64, 96, 128, 192, 384, 1152])
def test_a_packed_weight_means_what_its_groups_mean(bits, group, zero):
    weight = grouped(bits, group, zero=zero)
    packed = pack_grouped(weight)
    assert isinstance(packed, Fragments)
    expected = weight.dequantize()
    # The bias is a product rounded to float32, of codes below 2**bits.
    limit = 2**-24 * (2 << bits) if zero else 0
    assert (packed.dequantize() - expected).abs().max() <= limit


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_scales_keep_their_range(dtype):
    weight = grouped(4, 128, zero=False, dtype=dtype)
    tiny = Grouped(weight.codes, (weight.scale.float() * 1e-30).to(dtype), None, 4, 128)
    packed = pack_grouped(tiny)
    assert torch.equal(packed.dequantize(), tiny.dequantize())
    assert packed.dequantize().any()


@pytest.mark.parametrize("group", [8, 24])
def test_groups_between_runs_of_columns_stay_as_they_are(group):
    weight = grouped(4, group, zero=True)
    assert pack_grouped(weight) is weight


def test_records_of_four_bits_take_little_more_than_their_bits():
    assert pack_grouped(grouped(4, 128, zero=False, columns=4096, rows=64)).nbytes * 8 == (
        64 * 4096 * 4.25
    )
    assert pack_grouped(grouped(4, 128, zero=True, columns=4096, rows=64)).nbytes * 8 == (
        64 * 4096 * 4.5
    )


def test_columns_out_of_order_come_back_in_order():
    weight = grouped(4, 32, zero=True, columns=512)
    order = torch.randperm(512, generator=torch.Generator().manual_seed(1))
    shuffled = Grouped(weight.codes, weight.scale, weight.zero, 4, 32, order)
    packed = pack_grouped(shuffled)
    torch.testing.assert_close(packed.dequantize(), shuffled.dequantize(), rtol=0, atol=1e-5)
    with pytest.raises(LayoutError, match="no parts along them"):
        packed.shard(1, 0, 2)
    with pytest.raises(LayoutError, match="stack before they are packed"):
        Fragments.stack([packed, packed])


@pytest.mark.parametrize("scale", ["powers", "floats"])
def test_floats_of_four_bits_are_whole_when_doubled(scale):
    generator = torch.Generator().manual_seed(0)
    elements = torch.randint(256, (40, 288), generator=generator).to(torch.uint8)
    if scale == "powers":
        drawn = torch.randint(1, 250, (40, 18), generator=generator).to(torch.uint8)
        weight = Microscaled(elements, drawn.view(torch.float8_e8m0fnu), 32)
    else:
        drawn = torch.rand(40, 36, generator=generator).to(torch.float8_e4m3fn)
        weight = Microscaled(elements, drawn, 16, torch.rand(40, 1, generator=generator))
    packed = pack_microscaled(weight)
    assert isinstance(packed, Fragments)
    assert torch.equal(packed.dequantize(), weight.dequantize())


def eight_bits(patterns):
    scale = 2.0 ** torch.arange(-3, 5).view(4, 2)
    return Microscaled(patterns.view(torch.float8_e4m3fn), scale.to(torch.float8_e8m0fnu), 128)


def test_floats_of_eight_bits_are_records():
    patterns = torch.arange(256, dtype=torch.int16).repeat(4, 1).to(torch.uint8)
    weight = eight_bits(patterns.where(patterns & 127 != 127, 0))
    packed = pack_microscaled(weight)
    assert isinstance(packed, Fragments)
    assert torch.equal(packed.dequantize(), weight.dequantize())


@pytest.mark.parametrize("pattern", [0x7F, 0xFF])
def test_floats_of_which_one_is_no_number_stay_as_they_are(pattern):
    patterns = torch.zeros(4, 256, dtype=torch.uint8)
    patterns[2, 77] = pattern
    weight = eight_bits(patterns)
    assert pack_microscaled(weight) is weight


def lookup(rows=40, columns=576, group=64, entries=16, own=False):
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (rows, columns // 2), generator=generator).to(torch.uint8)
    table = torch.linspace(-1, 1, entries).pow(3).expand(rows if own else 1, entries).contiguous()
    return Lookup(codes, table, torch.rand(rows, columns // group, generator=generator), group)


def test_codes_into_one_table():
    weight = lookup()
    packed = pack_lookup(weight)
    assert isinstance(packed, Fragments)
    assert torch.equal(packed.dequantize(), weight.dequantize())


def test_tables_of_rows_stay_as_they_are():
    weight = lookup(own=True)
    assert pack_lookup(weight) is weight


@pytest.mark.parametrize("floats", [(3, 2), (2, 3)], ids=["E3M2", "E2M3"])
def test_floats_of_six_bits_are_records(floats):
    weight = random_six_bits(40, 576, torch.Generator().manual_seed(0), floats)
    packed = pack_lookup(weight)
    assert isinstance(packed, Fragments)
    assert packed.encoding.floats == floats
    assert torch.equal(packed.dequantize(), weight.dequantize())
    other = replace(weight, table=weight.table.flip(1))
    assert pack_lookup(other) is other
