"""Matrices become trellises that the format's reader decodes to nearly the same numbers."""

import json

import pytest
import torch
from aphrodite_kernels.backend import backend_for
from aphrodite_kernels.layouts.trellis import Trellis, TrellisCodebook
from aphrodite_quant import FormatError, Options, Statistics, Weights, open_checkpoint
from aphrodite_quant.quantizers.exl3 import quantizer
from aphrodite_quant.trellis.encode import encode
from safetensors.torch import save_file

RATE_BOUND = {1: 1.15, 1.5: 1.15, 2: 1.15, 2.5: 1.17, 3: 1.2, 3.5: 1.2, 4: 1.22, 6: 1.35}
"""Bits -> most that the error of noise may be, in multiples of what any code of the rate leaves."""
BACKEND = backend_for(torch.device("cpu"))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", RATE_BOUND)
def test_noise_comes_near_the_bound_of_its_rate(bits):
    weight = noise(128, 128)
    packed = encode(weight, torch.eye(128), bits, TrellisCodebook.MUL1, BACKEND.find_paths)
    error = float((packed.dequantize() - weight).square().mean() / weight.square().mean())
    assert 4.0**-bits < error < RATE_BOUND[bits] * 4.0**-bits


@pytest.mark.parametrize(("variant", "bits"), [("mcg", 2), ("3inst", 3), (None, 4), ("mul1", 2.5)])
def test_the_reader_finds_the_matrix(variant, bits, tmp_path):
    weight = noise(120, 100) * torch.linspace(0.5, 2, 120)[:, None]
    made = quantizer(Options(bits=bits, variant=variant), {(120, 100)}).on(BACKEND)
    inputs = torch.eye(100)
    tensors = made.quantize(weight, Statistics(inputs, inputs.diagonal()))
    save_file({f"a.{name}": one for name, one in tensors.items()}, tmp_path / "model.safetensors")
    config = {"quantization_config": made.config(())}
    (tmp_path / "config.json").write_text(json.dumps(config))
    packed = Weights.of(open_checkpoint(tmp_path)).packed("a", (120, 100))
    assert isinstance(packed, Trellis) and packed.bits == bits
    assert packed.codebook == (variant or "mul1")
    error = float((packed.dequantize() - weight).square().sum() / weight.square().sum())
    assert 4.0**-bits / 3 < error < RATE_BOUND[bits] * 4.0**-bits


def test_errors_move_to_where_inputs_do_not_see_them():
    weight, inputs = noise(128, 128), noise(64, 128, seed=1) @ noise(128, 128, seed=2)
    hessian = inputs.T @ inputs / len(inputs)

    def error(packed):
        lost = packed.dequantize() - weight
        return float(((lost @ hessian) * lost).sum())

    blind, seeing = (
        encode(weight, known, 2, TrellisCodebook.MCG, BACKEND.find_paths)
        for known in (torch.eye(128), hessian)
    )
    assert error(seeing) < 0.6 * error(blind)


def test_input_features_of_all_sizes_keep_their_share():
    """Blocks and channels of other sizes than their neighbours' are not drowned."""
    sizes = torch.cat((torch.full((128,), 0.02), torch.logspace(-1, 1, 128)))
    weight = noise(128, 256) * sizes
    hessian = torch.diag(sizes**-2)
    packed = encode(weight, hessian, 4, TrellisCodebook.MUL1, BACKEND.find_paths)
    lost = ((packed.dequantize() - weight) / sizes).square().mean(0).view(2, 128).mean(1)
    assert float(lost.max()) < 4 * 4.0**-4


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"bits": 9}, (128, 128), "1 to 8 bits, and of 1.5, 2.5 and 3.5, not 9"),
        ({"bits": 4.5}, (128, 128), "not 4.5"),
        ({"bits": 2.5, "variant": "mcg"}, (128, 128), "exl3:mcg has no weights of 2.5 bits"),
        ({"variant": "5inst"}, (128, 128), "exl3:5inst is not known; present are exl3:3inst"),
        ({"group_size": 64}, (128, 128), "exl3 has no option group_size"),
    ],
)
def test_what_cannot_be_is_refused(options, shape, message):
    with pytest.raises(FormatError, match=message):
        quantizer(Options(**options), {shape})
