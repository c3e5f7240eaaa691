"""Weights that optimum-quanto wrote, decoded as it decodes them, and what is wrong."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped, Scaled
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("case", ["int8", "float8"])
def test_golden_weights_are_decoded(opened, case):
    weights, expected = opened(f"quanto:{case}")
    found = weights.packed("layer", (16, 256))
    assert isinstance(found, Scaled) and found.per_row
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", ["int4-half", "int4-row", "int2-bfloat16", "int2-odd"])
def test_golden_weights_of_few_bits_are_decoded(opened, case):
    weights, expected = opened(f"quanto-bits:{case}")
    found = weights.packed("layer", tuple(expected.shape))
    assert isinstance(found, Grouped) and found.bits == int(case[3])
    # A shift is stored as the code that it stands for: a step times the rounding of float32.
    largest = float(expected.abs().max())
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=1e-6 * largest)


def test_whole_numbers_shift_codes(opened):
    shift = torch.arange(32, dtype=torch.int8).view(32, 1) % 16
    weights, expected = opened("quanto-bits:int4-half", **{"weight._shift": shift})
    found = weights.packed("layer", tuple(expected.shape))
    assert torch.equal(found.zeros(), shift.float().view(16, 2))


def test_a_map_of_modules_says_what_each_is(tmp_path):
    """As `QuantizedModelForCausalLM.save_pretrained` leaves it, without a word in config.json."""
    golden = load_file(GOLDEN / "quanto-bits.safetensors")
    tensors = {f"a.{n.partition('.')[2]}": t for n, t in golden.items() if n.startswith("int2-odd")}
    expected = tensors.pop("a.effective_weight")
    save_file(tensors | {"b.weight": torch.ones(2, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    stated = {"a": {"weights": "qint2", "activations": "none"}}
    (tmp_path / "quanto_qmap.json").write_text(json.dumps(stated))
    weights = Weights.of(open_checkpoint(tmp_path))
    torch.testing.assert_close(weights.packed("a", (9, 64)).dequantize(), expected)
    assert isinstance(weights.packed("b", (2, 4)), Dense)
    with pytest.raises(TensorError, match=r"weight 'a' is \[9, 64\], expected \[9, 32\]"):
        weights.packed("a", (9, 32))


def test_a_module_that_was_left_alone_is_dense(write_module):
    config = {"quant_method": "quanto", "weights": "int8"}
    assert isinstance(write_module(config, {"weight": torch.ones(2, 4)}).packed("layer"), Dense)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight._scale": None}, "no tensor 'layer.weight._scale'"),
        ({"weight._scale": torch.zeros(16, 1)}, "_scale' holds 0.0; expected numbers above 0"),
        ({"weight._scale": torch.ones(16, 2)}, r"_scale' is \[16, 2\], but the scales of \[16, 25"),
        ({"weight._data": torch.ones(16, 256)}, "_data' is float32 .* expected a matrix of int8"),
        ({"weight._data": None}, "'layer.weight' is missing, but beside it"),
        ({"input_scale": torch.tensor(torch.nan)}, "input_scale' holds nan"),
    ],
)
def test_what_is_wrong_is_named(opened, changes, message):
    weights, _ = opened("quanto:int8", **changes)
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        weights.packed("layer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight._shift": None}, "no tensor 'layer.weight._shift'"),
        ({"weight._scale": torch.zeros(32, 1)}, "_scale' holds 0.0; expected numbers that are not"),
        ({"weight._scale": torch.ones(33, 1)}, r"expected \[R, 1\], 2 groups to a packed row"),
        ({"weight._data._data": torch.ones(16, 128)}, "expected a matrix of uint8"),
        ({"weight._shift": torch.full((32, 1), torch.nan)}, "_shift' holds nan"),
    ],
)
def test_what_is_wrong_with_few_bits_is_named(opened, changes, message):
    weights, _ = opened("quanto-bits:int4-half", **changes)
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        weights.packed("layer", (16, 256))


def test_other_types_are_refused(opened):
    with pytest.raises(FormatError, match="quanto's weights are 'int3', which is not supported"):
        opened("quanto:int8", stated={"weights": "int3"})
