"""Grouped codes: what they stand for, how they divide, stack and move."""

import pytest
import torch
from aphrodite_kernels.errors import LayoutError
from aphrodite_kernels.layouts import Dense, Grouped

CODES, SCALE = torch.zeros(4, 16, dtype=torch.uint8), torch.ones(4, 1)


def drawn(bits, rows=6, columns=64, group=16, order=None):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(1 << bits, (rows, columns), generator=generator).to(torch.uint8)
    scale = torch.rand(rows, columns // group, generator=generator).half()
    zero = torch.rand(rows, columns // group, generator=generator) * (1 << bits)
    return codes, Grouped.pack(codes, scale, zero, bits, group, order)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_are_one_stream_of_bits(bits):
    codes, weight = drawn(bits)
    for row, packed in zip(codes, weight.codes, strict=True):
        stream = sum(int(code) << bits * place for place, code in enumerate(row))
        assert bytes(packed.tolist()) == stream.to_bytes(64 * bits // 8, "little")
    assert torch.equal(weight.unpack(), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_elements_are_what_the_definition_says(bits):
    order = torch.randperm(64)
    codes, weight = drawn(bits, order=order)
    found = weight.dequantize()
    for n, j in ((0, 0), (5, 63), (2, 17), (3, 48)):
        difference = codes[n, j].float() - weight.zero[n, j // 16]
        assert found[n, order[j]] == difference * weight.scale[n, j // 16].float()
    implied = Grouped(weight.codes, weight.scale, None, bits, 16)
    middle = (codes.float() - 2 ** (bits - 1)) * weight.scale.float().repeat_interleave(16, 1)
    assert torch.equal(implied.dequantize(), middle)


@pytest.mark.parametrize("bits", [3, 4])
def test_parts_rows_and_stacks(bits):
    _, weight = drawn(bits)
    dense = weight.dequantize()
    for axis in (0, 1):
        parts = [weight.shard(axis, rank, 2) for rank in range(2)]
        assert torch.equal(torch.cat([part.dequantize() for part in parts], axis), dense)
    index = torch.tensor([5, 0, 0])
    assert torch.equal(weight.rows(index).dequantize(), dense[index])
    implied = Grouped(weight.codes, weight.scale, None, bits, 16)
    stacked = Grouped.stack([weight, implied])
    assert torch.equal(stacked.dequantize(), torch.cat([dense, implied.dequantize()]))
    assert weight.to(torch.device("cpu")).nbytes == weight.nbytes
    one = Grouped(weight.codes, weight.scale[:, :1], None, bits, 64)
    halves = torch.cat([one.shard(1, rank, 2).dequantize() for rank in range(2)], 1)
    assert torch.equal(halves, one.dequantize())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grouped(CODES, SCALE, None, 9, 16), "1 to 8 bits, not 9"),
        (lambda: Grouped(CODES.long(), SCALE, None, 8, 16), "a uint8 matrix, not torch.int64"),
        (lambda: Grouped(CODES, SCALE, None, 8, 6), "do not divide into groups of 6"),
        (lambda: Grouped(CODES, SCALE, None, 8, 8), r"is \[4, 2\] floating numbers"),
        (lambda: Grouped(CODES, SCALE, SCALE.int(), 8, 16), "the zero of"),
        (lambda: Grouped(CODES, SCALE, None, 8, 16, torch.arange(4)), r"is \[16\] int64"),
        (lambda: Grouped.pack(CODES[:, :7], SCALE, None, 3, 7), "do not fill whole bytes"),
        (lambda: Grouped.pack(CODES + 16, SCALE, None, 4, 16), "code 16 does not fit 4 bits"),
        (
            lambda: Grouped.pack(CODES, SCALE, None, 4, 16, torch.zeros(16).long()),
            "does not name each of them once",
        ),
        (lambda: drawn(4)[1].shard(1, 0, 8), "groups of 16 does not divide into 8"),
        (lambda: drawn(4, order=torch.arange(64))[1].shard(1, 0, 2), "columns out of order"),
        (lambda: Grouped.stack([drawn(4)[1], drawn(3)[1]]), "different width, bits or group"),
        (
            lambda: Grouped.stack([drawn(4)[1], drawn(4, order=torch.arange(64))[1]]),
            "in different orders",
        ),
        (lambda: Grouped.stack([drawn(4)[1], Dense(torch.ones(1, 1))]), "of that layout"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(LayoutError, match=message):
        make()
