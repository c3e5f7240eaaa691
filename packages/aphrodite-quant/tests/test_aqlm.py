"""AQLM: what its package decodes from random codes, and files that are wrong."""

from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.codebook import Codebook
from aphrodite_quant import FormatError, TensorError
from safetensors.torch import load_file

GOLDEN = load_file(Path(__file__).parent / "golden" / "aqlm.safetensors")


def stated(books, bits, width, height=1, **more):
    return {
        "quant_method": "aqlm", "num_codebooks": books, "nbits_per_codebook": bits,
        "in_group_size": width, "out_group_size": height,
    } | more  # fmt: skip


def golden(case):
    """The tensors of a module, as its tool writes them; entries that no code names are 0."""
    tensors = {name: GOLDEN[f"{case}.{name}"] for name in ("codes", "scales")}
    if case == "1x16g8":
        entries = torch.zeros(1, 65536, 1, 8).half()
        entries[0, GOLDEN[f"{case}.named"].long(), 0] = GOLDEN[f"{case}.entries"][:, 0]
    elif case == "8x8g32":
        book, code = GOLDEN[f"{case}.named"].long().T
        entries = torch.zeros(8, 256, 1, 32).half()
        entries[book, code, 0] = GOLDEN[f"{case}.entries"]
    else:
        entries = GOLDEN[f"{case}.codebooks"]
    return tensors | {"codebooks": entries}


@pytest.mark.parametrize(
    ("case", "config"),
    [
        ("1x16g8", stated(1, 16, 8)),
        ("2x8g8", stated(2, 8, 8)),
        ("8x8g32", stated(8, 8, 32)),
    ],
)
def test_numbers_are_those_of_its_package(write_module, case, config):
    expected = GOLDEN[f"{case}.effective_weight"]
    found = write_module(config, golden(case)).packed("layer", tuple(expected.shape))
    assert isinstance(found, Codebook)
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("bits", "dtype"), [(3, torch.int8), (8, torch.int16), (11, torch.int16), (16, torch.int32)]
)
def test_any_rectangle_and_number_of_bits(write_module, bits, dtype):
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(1 << bits, (6, 5, 3), generator=generator)
    entries = torch.randn(3, 1 << bits, 2, 4, generator=generator).bfloat16()
    scales = torch.rand(6, 1, 1, 1, generator=generator)
    stored = torch.where(codes < 1 << bits - 1, codes, codes - (1 << bits)).to(dtype)
    expected = torch.empty(12, 20)
    for n in range(12):
        for k in range(20):
            named = codes[n // 2, k // 4].tolist()
            numbers = [float(entries[c, code, n % 2, k % 4]) for c, code in enumerate(named)]
            expected[n, k] = float(scales[n // 2]) * sum(numbers)
    tensors = {"codes": stored, "codebooks": entries, "scales": scales}
    found = write_module(stated(3, bits, 4, 2), tensors).packed("layer", (12, 20))
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=1e-6)


def test_a_module_that_was_left_alone_is_dense(write_module):
    config = stated(2, 8, 8, linear_weights_not_to_quantize=["layer.weight"])
    found = write_module(config, {"weight": torch.ones(4, 8)}).packed("layer")
    assert isinstance(found, Dense)
    with pytest.raises(TensorError, match=r"linear_weights_not_to_quantize .* has 'layer', which"):
        write_module(config, golden("2x8g8")).packed("layer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebooks": None}, "layer.codebooks"),
        ({"scales": None}, "layer.scales"),
        ({"codes": torch.zeros(16, 32).byte()}, r"uint8 \[16, 32\]; expected int8, .*columns, 2\]"),
        ({"codes": torch.zeros(16, 32, 3).char()}, r"int8 \[16, 32, 3\]; expected .*columns, 2\]"),
        ({"codes": torch.full((16, 32, 2), 256).short()}, "holds the code 256; expected 8 bits"),
        ({"codes": torch.full((16, 32, 2), -129).short()}, "holds the code -129; expected 8 bits"),
        ({"codebooks": torch.zeros(2, 128, 1, 8)}, r"expected .*\[2, 256, 1, 8\]"),
        ({"codebooks": torch.full((2, 256, 1, 8), torch.nan)}, "codebooks' holds nan; expected"),
        ({"scales": torch.ones(16)}, r"scales' is float32 \[16\]; expected .*\[16, 1, 1, 1\]"),
        ({"scales": torch.full((16, 1, 1, 1), torch.inf)}, "scales' holds inf; expected finite"),
    ],
)
def test_what_is_wrong_is_named(write_module, change, message):
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        write_module(stated(2, 8, 8), golden("2x8g8") | change).packed("layer")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (stated(0, 8, 8), "num_codebooks is a number above 0, found 0"),
        (stated(2, 17, 8), "nbits_per_codebook is 16 at most, found 17"),
        (stated(2, 8, None), "in_group_size is a number above 0, found None"),
        (stated(2, 8, 8, "1"), "out_group_size is a number above 0, found '1'"),
    ],
)
def test_settings_that_no_format_has(write_module, config, message):
    with pytest.raises(FormatError, match=message):
        write_module(config, golden("2x8g8"))
