"""QuIP#: codes decoded one by one in Python, transforms as matrices, and files that are wrong."""

import json
from itertools import product

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import save_file

CONFIG = {"quant_method": "QUiP", "codebook": "E8P12", "use_rand": True}
FOUR = {"codebook": "E8P12RVQ4B"}
BYTES = (0, 2, 1, 3, 4, 6, 5, 7)
"""Of each of eight bytes that a code becomes in its tool's kernel: the number that it is for."""
NORM_12 = """31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313
33311133 33133311 33133131 33131331 33133113 33131313 33131133 31333311 31333131 31331331 31333113
31331313 13331133 13333311 13333131 13331331 13333113 13331313 11331333 33113331"""


def sizes():
    """The 256 vectors of absolute values, in quarters."""
    small = sorted(v for v in product((2, 6, 10), repeat=8) if sum(n * n for n in v) <= 160)
    return [list(v) for v in small] + [[2 * int(digit) for digit in v] for v in NORM_12.split()]


SIZES = sizes()


def two_bits(code):
    """Eight numbers of a code, byte by byte: signs are two's complements of quarters."""
    signs, size = code & 255, SIZES[code >> 8]
    odd = signs.bit_count() % 2
    signs ^= odd
    numbers = [0.0] * 8
    for byte, place in enumerate(BYTES):
        value = size[place]
        if place == 7 and sum(size) // 4 % 2:
            value = -value
        if signs >> (7 - byte) & 1:
            value = -value
        numbers[place] = (value + 1 - 2 * odd) / 4
    return numbers


def one_bit():
    """The 256 points, in the order of their codes."""
    whole = [v for v in product((-1, 0, 1), repeat=8) if sum(n * n for n in v) <= 2]
    halves = list(product((-0.5, 0.5), repeat=8))
    points = [v for v in whole + halves if sum(v) % 2 == 0]
    axes = [[2 * sign * (i == j) for j in range(8)] for sign in (1, -1) for i in range(8)]
    return points + axes[:-1]


def transform(size, base=None):
    """base ⊗ H, float64."""
    base = torch.ones(1, 1).double() if base is None else base.double().contiguous()
    power = size // len(base)
    signs = [[(-1) ** (i & j).bit_count() for j in range(power)] for i in range(power)]
    return torch.kron(base, torch.tensor(signs).double() / power**0.5)


def made(codebook="E8P12", rows=32, columns=96):
    """Tensors of a module and the dense matrix by the definition, float64."""
    generator = torch.Generator().manual_seed(5)
    shape = (rows, columns // 8)
    codes = torch.randint(1 << 16, shape, generator=generator)
    inner = torch.tensor([[two_bits(code) for code in row] for row in codes.tolist()]).double()
    if codebook == "E8P12":
        stored = codes.to(torch.uint16).view(torch.int16)
    elif codebook == "E8P12RVQ4B":
        more = torch.randint(1 << 16, shape, generator=generator)
        rest = torch.tensor([[two_bits(code) for code in row] for row in more.tolist()]).double()
        inner = inner + rest / 3.45
        stored = (codes << 16 | more).to(torch.uint32).view(torch.int32)
    else:
        more = torch.randint(1 << 8, shape, generator=generator)
        inner = inner + torch.tensor(one_bit()).double()[more] / 2.04
        data = [b"".join((c << 8 | m).to_bytes(3, "little") for c, m in zip(*row, strict=True))
                for row in zip(codes.tolist(), more.tolist(), strict=True)]  # fmt: skip
        stored = torch.stack([torch.frombuffer(bytearray(d), dtype=torch.int32) for d in data])
    odd = torch.randn(3, 3, generator=generator).half() if columns % 3 == 0 else None
    su, sv = (torch.randn(size, generator=generator).half() for size in (columns, rows))
    tensors = {
        "Qidxs": stored, "Wscale": torch.tensor(0.37), "SU": su, "SV": sv, "had_left": odd
    }  # fmt: skip
    right = transform(columns, None if odd is None else odd.T)
    dense = transform(rows) @ inner.flatten(1) * 0.37 @ right
    return tensors, sv.double()[:, None] * dense * su.double()


@pytest.mark.parametrize("codebook", ["E8P12", "E8P12RVQ3B", "E8P12RVQ4B"])
def test_it_is_what_the_definition_says(write_module, codebook):
    tensors, dense = made(codebook)
    found = write_module(CONFIG | {"codebook": codebook}, tensors).packed("layer", (32, 96))
    assert isinstance(found, Rotated)
    torch.testing.assert_close(found.dequantize().double(), dense, rtol=1e-4, atol=1e-4)


def test_padded_channels_are_cut(write_module):
    tensors, dense = made(columns=64)
    tensors |= {"SU": tensors["SU"][:48].clone(), "SV": tensors["SV"][:20].clone()}
    found = write_module(CONFIG, tensors).packed("layer", (20, 48)).dequantize()
    torch.testing.assert_close(found.double(), dense[:20, :48], rtol=1e-4, atol=1e-4)


def test_scales_may_be_merged_or_of_rows(write_module):
    tensors, dense = made()
    ones = {"SU": torch.ones(96).half(), "SV": torch.ones(32).half()}
    merged = write_module(CONFIG, tensors | {"SU": None, "SV": None}).packed("layer").dequantize()
    assert torch.equal(merged, write_module(CONFIG, tensors | ones).packed("layer").dequantize())
    found = write_module(CONFIG, tensors | {"Wscale": torch.full((32,), 0.37)}).packed("layer")
    torch.testing.assert_close(found.dequantize().double(), dense, rtol=1e-4, atol=1e-4)


def test_a_module_that_was_left_alone_is_dense(write_module):
    config = CONFIG | {"modules_to_not_convert": ["layer"]}
    assert isinstance(write_module(config, {"weight": torch.ones(4, 8)}).packed("layer"), Dense)
    with pytest.raises(TensorError, match=r"modules_to_not_convert .* has 'layer', which leaves"):
        write_module(config, made()[0]).packed("layer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Wscale": None}, "layer.Wscale"),
        ({"Wscale": torch.tensor(torch.nan)}, "Wscale' holds nan; expected finite"),
        ({"Qidxs": torch.ones(32, 3).long()}, r"int64 \[32, 3\]; expected a matrix of int16"),
        ({"had_left": torch.ones(5, 5)}, r"had_left' is float32 \[5, 5\]; .* of which 96 channels"),
        ({"had_left": torch.ones(3)}, r"had_left' is float32 \[3\]; expected a square"),
        ({"had_left": None}, "of 96 channels, which is no power of two, and 'layer.had_left' is"),
        ({"SU": torch.ones(97)}, r"SU' is float32 \[97\]; expected more than 48 numbers and 96"),
        ({"SV": torch.ones(2, 16)}, r"SV' is float32 \[2, 16\]; expected more than 16 numbers"),
        ({"SV": torch.full((32,), torch.inf)}, "SV' holds inf; expected finite"),
    ],
)
def test_what_is_wrong_is_named(write_module, change, message):
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        write_module(CONFIG, made()[0] | change).packed("layer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook": "D4"}, "codebook is one of E8P12, E8P12RVQ3B, E8P12RVQ4B, found 'D4'"),
        ({"rescale_WH": True}, "rescale_WH divides inputs"),
        (FOUR | {"opt_resid_scale": "x"}, "opt_resid_scale is a number above 0, found 'x'"),
        (FOUR | {"opt_resid_scale": -1}, "opt_resid_scale is a number above 0, found -1"),
    ],
)
def test_settings_that_are_not_read(write_module, change, message):
    with pytest.raises(FormatError, match=message):
        write_module(CONFIG | change, made()[0])


def test_the_scale_of_residuals_is_nothing_to_a_codebook_without(write_module):
    tensors, dense = made()
    found = write_module(CONFIG | {"opt_resid_scale": -1}, tensors).packed("layer").dequantize()
    torch.testing.assert_close(found.double(), dense, rtol=1e-4, atol=1e-4)


def test_the_scale_of_residuals_may_be_stated(write_module):
    config, (tensors, dense) = CONFIG | FOUR, made("E8P12RVQ4B")
    found = write_module(config | {"opt_resid_scale": 1 / 3.45}, tensors).packed("layer")
    torch.testing.assert_close(found.dequantize().double(), dense, rtol=1e-4, atol=1e-4)
    doubled = write_module(config | {"opt_resid_scale": 2}, tensors).packed("layer").dequantize()
    assert not torch.allclose(doubled.double(), dense)


def test_the_configuration_may_lie_beside(tmp_path):
    tensors, dense = made()
    kept = {f"layer.{name}": t for name, t in tensors.items() if t is not None}
    save_file(kept, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "quantization_config.json").write_text(json.dumps(CONFIG | {"codesz": 8}))
    found = Weights.of(open_checkpoint(tmp_path)).packed("layer").dequantize()
    torch.testing.assert_close(found.double(), dense, rtol=1e-4, atol=1e-4)
