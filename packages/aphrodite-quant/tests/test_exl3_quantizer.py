"""Matrices become trellises that the format's reader decodes to nearly the same numbers."""

import json

import pytest
import torch
from aphrodite_kernels.layouts.trellis import Trellis, TrellisCodebook, trellis_numbers
from aphrodite_quant import FormatError, Options, Statistics, Weights, open_checkpoint
from aphrodite_quant.quantizers.exl3 import quantizer
from aphrodite_quant.trellis.encode import encode, ring_states
from aphrodite_quant.trellis.search import find_paths
from safetensors.torch import save_file

RATE_BOUND = {1: 1.35, 2: 1.35, 3: 1.6, 4: 2.2}
"""Bits -> most that the error of noise may be, in multiples of what any code of the rate leaves."""


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", RATE_BOUND)
def test_paths_are_near_the_bound_of_their_rate(bits):
    targets = noise(8, 256)
    numbers = trellis_numbers(TrellisCodebook.MCG, targets.device).float()
    numbers /= numbers.std()
    symbols = find_paths(targets, bits, numbers)
    assert int(symbols.min()) >= 0 and int(symbols.max()) < 1 << bits
    error = float((numbers[ring_states(symbols, bits)] - targets).square().mean())
    assert 4.0**-bits < error < RATE_BOUND[bits] * 4.0**-bits


@pytest.mark.parametrize("bits", [4, 8])
def test_every_state_of_a_ring_of_few_bits_is_found_again(bits):
    symbols = torch.randint(0, 1 << bits, (2, 256), generator=torch.Generator().manual_seed(1))
    numbers = trellis_numbers(TrellisCodebook.MUL1, symbols.device).float()
    targets = numbers[ring_states(symbols, bits)]
    found = numbers[ring_states(find_paths(targets, bits, numbers), bits)]
    assert float((found - targets).square().mean()) < 0.6 * 4.0**-bits


@pytest.mark.parametrize(("variant", "bits"), [("mul1", 2), ("3inst", 3), (None, 4)])
def test_the_reader_finds_the_matrix(variant, bits, tmp_path):
    weight = noise(120, 100) * torch.linspace(0.5, 2, 120)[:, None]
    made = quantizer(Options(bits=bits, variant=variant), {(120, 100)})
    inputs = torch.eye(100)
    tensors = made.quantize(weight, Statistics(inputs, inputs.diagonal()))
    save_file({f"a.{name}": one for name, one in tensors.items()}, tmp_path / "model.safetensors")
    config = {"quantization_config": made.config(())}
    (tmp_path / "config.json").write_text(json.dumps(config))
    packed = Weights.of(open_checkpoint(tmp_path)).packed("a", (120, 100))
    assert isinstance(packed, Trellis) and packed.bits == bits
    assert packed.codebook == (variant or "mcg")
    error = float((packed.dequantize() - weight).square().sum() / weight.square().sum())
    assert 4.0**-bits / 3 < error < 1.25 * RATE_BOUND[bits] * 4.0**-bits


def test_errors_move_to_where_inputs_do_not_see_them():
    weight, inputs = noise(128, 128), noise(64, 128, seed=1) @ noise(128, 128, seed=2)
    hessian = inputs.T @ inputs / len(inputs)

    def error(packed):
        lost = packed.dequantize() - weight
        return float(((lost @ hessian) * lost).sum())

    blind = encode(weight, torch.eye(128), 2, TrellisCodebook.MCG)
    assert error(encode(weight, hessian, 2, TrellisCodebook.MCG)) < 0.6 * error(blind)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({"bits": 9}, (128, 128), "1 to 8 bits, not 9"),
        ({"variant": "5inst"}, (128, 128), "exl3:5inst is not known; present are exl3:3inst"),
        ({"group_size": 64}, (128, 128), "exl3 has no option group_size"),
    ],
)
def test_what_cannot_be_is_refused(options, shape, message):
    with pytest.raises(FormatError, match=message):
        quantizer(Options(**options), {shape})
