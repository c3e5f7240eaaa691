"""Ggml weights of the Triton backend: their records, and the PTX that reads them, interpreted here.

The conformance suite sees products by plain arithmetic where there is no GPU, not the PTX.
"""

import re

import numpy as np
import pytest
import torch
from aphrodite_kernels.backends.triton import device_obstacle
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing import random_blocks

if obstacle := device_obstacle():
    pytest.skip(f"no Triton kernel can run here: {obstacle}", allow_module_level=True)

from aphrodite_kernels.backends.triton.ggml import pack_fragments
from aphrodite_kernels.backends.triton.ggml.assembly import code_assembly
from aphrodite_kernels.backends.triton.ggml.dequantize import dequantize
from aphrodite_kernels.backends.triton.ggml.encoding import ENCODINGS, Encoding
from aphrodite_kernels.backends.triton.ggml.single import pick_assembly, single_product

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KINDS = pytest.mark.parametrize("kind", sorted(ENCODINGS), ids=lambda kind: kind.name)


def blocks_of(kind, rows, columns, seed=0):
    return random_blocks(kind, rows, columns, torch.Generator().manual_seed(seed))


def test_every_type_has_an_encoding():
    assert set(ENCODINGS) == set(DECODERS)


@KINDS
@pytest.mark.parametrize(("rows", "units"), [(48, 3), (7, 1)])
def test_a_packed_weight_means_what_its_blocks_mean(kind, rows, units):
    blocks = blocks_of(kind, rows, 256 * units)
    packed = pack_fragments(blocks)
    assert (packed.out_features, packed.in_features) == (rows, 256 * units)
    assert torch.equal(packed.dequantize(), blocks.dequantize())
    index = torch.tensor([6, 0, 6])
    assert torch.equal(packed.rows(index).dequantize(), blocks.dequantize()[index])


WIDENED = {
    GgmlType.TQ1_0: 2.125, GgmlType.Q1_0: 2.25, GgmlType.MXFP4: 5.0, GgmlType.NVFP4: 6.0,
    GgmlType.IQ1_S: 4.375, GgmlType.IQ2_XXS: 4.375, GgmlType.IQ3_XXS: 4.375, GgmlType.IQ3_S: 4.375,
    GgmlType.IQ1_M: 4.625, GgmlType.IQ2_XS: 4.625, GgmlType.IQ2_S: 4.625,
}  # fmt: skip
"""Bits per weight of those whose codes or scales are wider than the file's."""


@pytest.mark.parametrize("kind", sorted(set(ENCODINGS) - set(WIDENED)), ids=lambda kind: kind.name)
def test_records_take_the_bytes_of_the_blocks_and_little_more(kind):
    blocks = blocks_of(kind, 32, 1024)
    assert pack_fragments(blocks).nbytes <= 1.06 * blocks.nbytes


@pytest.mark.parametrize("kind", sorted(WIDENED), ids=lambda kind: kind.name)
def test_records_that_are_wider_than_the_blocks_take_so_many_bits(kind):
    packed = pack_fragments(blocks_of(kind, 32, 1024))
    assert 8 * packed.nbytes == WIDENED[kind] * 32 * 1024


def test_blocks_of_a_width_between_units():
    blocks = blocks_of(GgmlType.Q5_1, 20, 288)
    assert torch.equal(pack_fragments(blocks).dequantize(), blocks.dequantize())


def test_packed_weights_are_split_and_stacked_by_whole_records():
    blocks = blocks_of(GgmlType.Q4_K, 32, 512)
    packed, dense = pack_fragments(blocks), blocks.dequantize()
    halves = [packed.shard(0, rank, 2) for rank in range(2)]
    assert torch.equal(halves[1].dequantize(), dense[16:])
    assert torch.equal(type(packed).stack(halves).dequantize(), dense)
    assert torch.equal(packed.shard(1, 1, 2).dequantize(), dense[:, 256:])
    with pytest.raises(LayoutError, match="split before the weight is packed"):
        packed.shard(0, 0, 4)
    with pytest.raises(LayoutError, match="stack before they are packed"):
        type(packed).stack([packed.rows(torch.arange(3))] * 2)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_element_is_made_dense_with_one_rounding(kind, dtype):
    blocks = blocks_of(kind, 48, 512)
    dense = torch.empty(48, 512, dtype=dtype, device=DEVICE)
    dequantize(pack_fragments(blocks).to(DEVICE), 0, dense)
    assert torch.equal(dense.cpu(), blocks.dequantize(torch.float64).to(dtype))


@KINDS
@pytest.mark.parametrize("half", [True, False], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("run", range(16))
def test_assembly_takes_codes_out_of_words(kind, half, run):
    encoding = ENCODINGS[kind]
    generator = np.random.default_rng(run)
    low, high = generator.integers(0, 1 << 32, (2, 4096), dtype=np.uint64)
    pair = executed(code_assembly(run, encoding, half=half), low, high)
    for upper in (0, 16):
        code = field(low >> upper, run, encoding.low)
        if encoding.high:
            code |= field(high >> upper, run, encoding.high) << encoding.low
        if encoding.table:
            expected = np.array(encoding.table)[code]
        elif encoding.signed:
            expected = code.astype(np.int8)
        elif encoding.zero is None:
            expected = code + (1024 if half else 128)
        else:
            expected = code - encoding.zero
        np.testing.assert_array_equal(floats(pair >> upper & 0xFFFF, half=half), expected)


@pytest.mark.parametrize("half", [True, False], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("run", range(4))
def test_assembly_rounds_a_table_to_the_nearest(half, run):
    table = torch.randn(16, generator=torch.Generator().manual_seed(run))
    encoding = Encoding(4, 0, 0, 32, "float", 8, table=tuple(table.tolist()))
    words = np.random.default_rng(run).integers(0, 1 << 32, 4096, dtype=np.uint64)
    pair = executed(code_assembly(run, encoding, half=half), words, words)
    rounded = table.to(torch.float16 if half else torch.bfloat16).double().numpy()
    for upper in (0, 16):
        expected = rounded[field(words >> upper, run, 4)]
        np.testing.assert_array_equal(floats(pair >> upper & 0xFFFF, half=half), expected)


def test_assembly_picks_a_pair_by_its_column():
    pair = np.arange(8, dtype=np.uint64) + 0xABCD0001
    column = np.arange(8, dtype=np.uint64)
    np.testing.assert_array_equal(
        executed(pick_assembly(5), pair, column), np.where(column == 5, pair, 0)
    )


@KINDS
def test_one_row_is_multiplied_by_many_warps(kind):
    blocks = blocks_of(kind, 40, 2304)
    dense = blocks.dequantize(torch.float64)
    x = torch.randn(1, 2304, generator=torch.Generator().manual_seed(1)).half()
    bias = torch.arange(40.0)
    packed = pack_fragments(blocks).to(DEVICE)
    out = single_product(x.to(DEVICE), packed, bias.to(DEVICE), deep=8, tiles=2)
    expected = x.double() @ dense.T + bias
    typical = dense.square().sum(1).sqrt()
    assert ((out.cpu().double() - expected).abs() <= 1e-3 * (typical + expected.abs())).all()


def field(words, run, bits):
    """The code of one run in 16-bit words."""
    return (words >> bits * (run % (16 // bits)) & (1 << bits) - 1).astype(np.int64)


def floats(bits, *, half):
    """Of 16-bit patterns."""
    if half:
        return bits.astype(np.uint16).view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def bits_of(numbers, *, half):
    """The inverse of `floats`, for numbers that the format holds."""
    if half:
        return numbers.astype(np.float16).view(np.uint16).astype(np.uint64)
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint64)


def executed(assembly, low, high):
    """What the program leaves in $0, for arrays of words as $1 and $2."""
    names = {"$1": low, "$2": high}

    def value(name):
        return names[name] if name in names else np.full_like(low, int(name, 0) & 0xFFFFFFFF)

    for operation, operands in re.findall(r"([a-z][\w.]+) ([^;]+);", assembly.strip("{ }")):
        target, *rest = operands.split(", ")
        if operation != "reg":
            names[target] = OPERATIONS[operation](*map(value, rest))
    return names["$0"]


def lop3(a, b, c, table):
    wanted = {0x6A: (a & b) ^ c, 0xEA: (a & b) | c}
    return wanted[int(table[0])]


def prmt(a, b, selector):
    """Bytes of the pair (b, a), four bits of the selector for each."""
    both = a | b << np.uint64(32)
    picked = np.zeros_like(a)
    for place in range(4):
        index = selector >> np.uint64(4 * place) & np.uint64(15)
        assert (index < 8).all(), "the eighth bit would copy a sign"
        picked |= (both >> index * np.uint64(8) & np.uint64(255)) << np.uint64(8 * place)
    return picked


def multiplied(a, b, c, *, half):
    """a * b + c for both halves of a word, exactly."""
    result = np.zeros_like(a)
    for upper in (np.uint64(0), np.uint64(16)):
        first, second, third = (
            floats(word >> upper & np.uint64(0xFFFF), half=half) for word in (a, b, c)
        )
        exact = first * second + third
        rounded = bits_of(exact, half=half)
        np.testing.assert_array_equal(floats(rounded, half=half), exact)
        result |= rounded << upper
    return result


OPERATIONS = {
    "setp.eq.s32": lambda a, b: a == b,
    "selp.b32": lambda a, b, wanted: np.where(wanted, a, b),
    "mov.b32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "shr.b32": lambda a, b: a >> b,
    "shl.b32": lambda a, b: a << b & np.uint64(0xFFFFFFFF),
    "lop3.b32": lop3,
    "prmt.b32": prmt,
    "add.rn.f16x2": lambda a, b: multiplied(a, np.full_like(a, 0x3C003C00), b, half=True),
    "fma.rn.bf16x2": lambda a, b, c: multiplied(a, b, c, half=False),
}
