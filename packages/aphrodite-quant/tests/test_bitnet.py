"""BitNet b1.58: what transformers' layers make of packed, plain and online weights, and errors."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = load_file(Path(__file__).parent / "golden" / "bitnet.safetensors")
LAYER = "layers.0.proj"


@pytest.fixture
def written(tmp_path):
    """A checkpoint of some tensors of one module, opened."""

    def write(tensors, prefix=LAYER, **settings):
        save_file({f"{prefix}.{n}": t for n, t in tensors.items()}, tmp_path / "model.safetensors")
        config = {"quantization_config": {"quant_method": "bitnet"} | settings}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def packed():
    return {name: GOLDEN[name] for name in ("weight", "weight_scale")}


@pytest.mark.parametrize("kind", ["bitlinear", "autobitlinear"])
def test_a_scale_acts_as_in_its_linear_class(written, kind):
    found = written(packed(), linear_class=kind).packed(LAYER, (128, 32))
    assert isinstance(found, Grouped) and found.bits == 2
    torch.testing.assert_close(found.dequantize(), GOLDEN[kind], rtol=1e-6, atol=0)
    ternary = found.dequantize().sign()
    assert torch.equal(ternary, GOLDEN["unpacked"].float())


def test_a_scale_divides_unless_a_class_is_stated(written):
    found = written(packed()).packed(LAYER).dequantize()
    torch.testing.assert_close(found, GOLDEN["bitlinear"], rtol=1e-6, atol=0)


def test_unpacked_weights_with_a_scale(written):
    tensors = packed() | {"weight": GOLDEN["unpacked"].bfloat16()}
    found = written(tensors, linear_class="autobitlinear").packed(LAYER)
    assert isinstance(found, Grouped)
    torch.testing.assert_close(found.dequantize(), GOLDEN["autobitlinear"], rtol=1e-6, atol=0)


def test_online_weights_become_ternary(written):
    settings = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    tensors = {"weight": GOLDEN["online_weight"]}
    found = written(tensors, **settings).packed(LAYER)
    assert isinstance(found, Grouped)
    torch.testing.assert_close(found.dequantize(), GOLDEN["online"], rtol=1e-6, atol=1e-9)
    for prefix, kept in (("embed_tokens", []), (LAYER, ["proj"])):
        weights = written(tensors, prefix, modules_to_not_convert=kept, **settings)
        assert isinstance(weights.packed(prefix), Dense)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_scale": None}, r"layers.0.proj.weight_scale"),
        ({"weight_scale": torch.tensor([torch.nan])}, r"weight_scale' holds nan; expected finite"),
        ({"weight_scale": torch.tensor([0.0])}, r"weight_scale' holds 0.0; expected .* above 0"),
        ({"weight_scale": torch.ones(2)}, r"weight_scale' is float32 \[2\]; expected .*\[1\]"),
        ({"weight": torch.full((4, 8), 255).byte()}, r"proj.weight' holds the code 3; expected"),
        ({"weight": torch.zeros(4, 6).byte()}, r"uint8 \[4, 6\]; expected columns in multiples"),
        (
            {"weight": torch.zeros(8).byte()},
            r"proj.weight' is uint8 \[8\]; expected a matrix of uint8",
        ),
        ({"weight": torch.full((4, 8), 0.5)}, r"proj.weight' holds 0.5; expected -1, 0 and 1"),
    ],
)
def test_what_is_wrong_is_named(written, change, message):
    tensors = {n: t for n, t in (packed() | change).items() if t is not None}
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        written(tensors).packed(LAYER)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"linear_class": "linear"}, "linear_class is one of bitlinear, auto.*, found 'linear'"),
        ({"quantization_mode": 3}, "quantization_mode is one of offline, online, found 3"),
        ({"use_rms_norm": True}, "use_rms_norm puts a norm into every projection"),
    ],
)
def test_settings_that_are_not_read(written, settings, message):
    with pytest.raises(FormatError, match=message):
        written(packed(), **settings)


def test_a_packed_weight_of_a_plain_module_is_refused(written):
    with pytest.raises(TensorError, match=r"modules_to_not_convert .* has 'proj', which leaves"):
        written(packed(), modules_to_not_convert=["proj"]).packed(LAYER)
