"""EXL2: against its definition in whole numbers of Python, and files that are wrong."""

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_quant import TensorError

CONFIG = {"quant_method": "exl2", "bits": 3.7, "head_bits": 6}
GROUPS = [(8, 32), (6, 32), (6, 32), (5, 64), (4, 32), (4, 32), (3, 32), (2, 32), (2, 16)]
"""Bits and input features."""


def made(rows=16, groups=GROUPS):
    """Tensors of a module, and the dense matrix by the definition."""
    generator = torch.Generator().manual_seed(3)
    width = sum(size for _, size in groups)
    perm = torch.randperm(width, generator=generator)
    steps = torch.randint(16, (len(groups), rows), generator=generator)
    largest = torch.rand(len(groups), generator=generator).half()
    stored, words, listed = [], [], []
    for group, (bits, size) in enumerate(groups):
        codes = torch.randint(1 << bits, (size, rows), generator=generator)
        listed += [bits, sum(len(part) for part in words)]
        streams = [
            sum(code << bits * k for k, code in enumerate(column)) for column in codes.T.tolist()
        ]
        data = [bytearray(s.to_bytes(size * bits // 8, "little")) for s in streams]
        words.append(torch.stack([torch.frombuffer(d, dtype=torch.int32) for d in data], 1))
        scale = (steps[group] + 1) ** 2 * float(largest[group]) / 256
        stored.append((codes - (1 << bits - 1)) * scale)
    dense = torch.empty(width, rows)
    dense[perm] = torch.cat(stored)
    nibbles = (steps.view(len(groups), -1, 8) << 4 * torch.arange(8)).sum(-1)
    tensors = {
        "q_weight": torch.cat(words),
        "q_groups": torch.tensor(listed).short(),
        "q_scale": nibbles.to(torch.uint32).view(torch.int32),
        "q_scale_max": largest,
        "q_invperm": perm.argsort().int(),
    }
    return tensors, dense.T


def group_map(groups=GROUPS):
    pairs = [(i, size - j) for i, (_, size) in enumerate(groups) for j in range(size)]
    return torch.tensor(pairs).flatten().short()


def test_it_is_what_the_definition_says(write_module):
    tensors, dense = made()
    found = write_module(CONFIG, tensors).packed("layer", (16, 304))
    assert isinstance(found, Runs)
    assert [(p.bits, p.in_features) for p in found.parts] == [
        (8, 32), (6, 64), (5, 64), (4, 64), (3, 32), (2, 32), (2, 16),
    ]  # fmt: skip
    torch.testing.assert_close(found.dequantize(), dense, rtol=1e-6, atol=0)


def test_what_follows_from_the_rest_is_checked(write_module):
    tensors, dense = made()
    more = {"q_perm": tensors["q_invperm"].argsort().short(), "q_group_map": group_map()}
    found = write_module(CONFIG, tensors | more).packed("layer")
    torch.testing.assert_close(found.dequantize(), dense, rtol=1e-6, atol=0)


def test_a_module_that_was_left_alone_is_dense(write_module):
    assert isinstance(write_module(CONFIG, {"weight": torch.ones(4, 8)}).packed("layer"), Dense)


def test_padding_is_cut_where_the_model_asks(write_module):
    tensors, dense = made(rows=64)
    weights = write_module(CONFIG, tensors)
    for rows in (33, 63):
        found = weights.packed("layer", (rows, 304))
        assert found.out_features == rows
        torch.testing.assert_close(found.dequantize(), dense[:rows], rtol=1e-6, atol=0)
    for shape in ((32, 304), (65, 304), (63, 300)):
        expected = f"expected \\[{shape[0]}, {shape[1]}\\]"
        with pytest.raises(TensorError, match=rf"'layer' is \[64, 304\], {expected}"):
            weights.packed("layer", shape)


def test_its_memory_is_that_of_its_bits(write_module):
    found = write_module(CONFIG, made()[0]).packed("layer")
    codes = sum(part.codes.nbytes for part in found.parts)
    assert codes == sum(16 * bits * size // 8 for bits, size in GROUPS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q_scale": None}, "layer.q_scale"),
        ({"q_invperm": None}, "layer.q_invperm"),
        ({"q_groups": None}, "layer.q_groups"),
        ({"q_weight": torch.ones(4, 16)}, r"float32 \[4, 16\]; expected a matrix of int32"),
        ({"q_groups": torch.tensor([8, 0, 7, 4]).short()}, "group 1 of 7 bits in rows 4 to 44"),
        ({"q_groups": torch.tensor([8, 4]).short()}, "group 0 of 8 bits in rows 4 to 44"),
        ({"q_groups": torch.tensor([8, 0, 2, 0]).short()}, "group 0 of 8 bits in rows 0 to 0"),
        ({"q_groups": torch.tensor([8, 0, 2]).short()}, r"int16 \[3\]; expected int16, bits and"),
        ({"q_scale": torch.ones(9, 3).int()}, r"int32 \[9, 3\]; expected int32 \[9, 2\]"),
        ({"q_scale_max": torch.full((9,), torch.nan).half()}, "q_scale_max' holds nan; expected"),
        ({"q_invperm": torch.zeros(304).int()}, "does not name each of 304 input features once"),
        ({"q_invperm": torch.zeros(8).int()}, r"int32 \[8\]; expected integers \[304\]"),
        ({"q_perm": torch.arange(304).short()}, "'layer.q_perm' is not the inverse of"),
        ({"q_group_map": group_map().flip(0)}, "q_group_map' is not the map of the groups"),
    ],
)
def test_what_is_wrong_is_named(write_module, change, message):
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        write_module(CONFIG, made()[0] | change).packed("layer")
