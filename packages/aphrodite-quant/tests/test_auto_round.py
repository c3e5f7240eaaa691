"""Modules that AutoRound packed, decoded as it meant them, and settings that are wrong."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = load_file(Path(__file__).parent / "golden" / "auto-round.safetensors")
CASES = sorted({name.split(".")[0] for name in GOLDEN})
CONFIG = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "int"}


def module(case):
    """Tensors of a golden module, and its matrix."""
    start = f"{case}."
    tensors = {n.removeprefix(start): t for n, t in GOLDEN.items() if n.startswith(start)}
    return tensors, tensors.pop("effective_weight")


@pytest.fixture
def opened(tmp_path):
    """A checkpoint of modules (name -> tensors), opened."""

    def write(config, **modules):
        tensors = {f"{name}.{leaf}": t for name, own in modules.items() for leaf, t in own.items()}
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
        return Weights.of(open_checkpoint(tmp_path))

    return write


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["auto-round", "intel/auto-round", "inc"])
def test_golden_weights_are_decoded(opened, case, method):
    packing, bits = case.removesuffix("bit").split("-")
    own = "auto_round" if packing == "auto_round" else f"auto_round:{packing}"
    config = CONFIG | {"quant_method": method, "bits": int(bits), "packing_format": own}
    tensors, expected = module(case)
    found = opened(config, layer=tensors).packed("layer", (32, 64))
    assert isinstance(found, Grouped)
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=1e-6)


def test_the_packing_is_that_of_gptq_if_none_is_stated(opened):
    tensors, expected = module("auto_gptq-4bit")
    found = opened(CONFIG, layer=tensors).packed("layer")
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=1e-6)


def test_modules_may_differ(opened):
    (eight, wide), (two, narrow) = module("auto_round-8bit"), module("auto_round-2bit")
    extra = {
        "a.up": {"bits": 8},
        "lm_head": {"bits": 16, "data_type": "fp"},
        r".*\.up$": {"bits": 2},
    }
    head, plain = {"weight": torch.ones(2, 4)}, {"weight": torch.ones(4, 2)}
    modules = {"a.up": eight, "b.up": two, "lm_head": head, "c.down": plain}
    weights = opened(CONFIG | {"packing_format": "auto_round", "extra_config": extra}, **modules)
    torch.testing.assert_close(weights.packed("a.up").dequantize(), wide, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(weights.packed("b.up").dequantize(), narrow, rtol=1e-6, atol=1e-6)
    assert isinstance(weights.packed("lm_head"), Dense)
    assert isinstance(weights.packed("c.down"), Dense)


def test_what_is_wrong_is_named(opened):
    tensors, _ = module("auto_round-4bit")
    broken = tensors | {"scales": torch.full_like(tensors["scales"], torch.nan)}
    with pytest.raises(TensorError, match=r"model\.safetensors: tensor 'layer\.scales' holds nan"):
        opened(CONFIG, layer=broken).packed("layer")
    del broken["scales"]
    with pytest.raises(TensorError, match=r"has no tensor 'layer\.scales'"):
        opened(CONFIG, layer=broken).packed("layer")
    with pytest.raises(TensorError, match="64 input features do not divide into groups of 48"):
        opened(CONFIG | {"group_size": 48}, layer=tensors).packed("layer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packing_format": "mlx"}, "packing_format 'mlx' of AutoRound is not supported"),
        ({"packing_format": 7}, "packing_format 7"),
        ({"bits": 9}, "found bits 9"),
        ({"bits": 2, "packing_format": "auto_round:auto_awq"}, "AWQ has 4 bits, found bits 2"),
        ({"group_size": 0}, "positive number or -1, found 0"),
        ({"data_type": "mx_fp"}, "data_type 'mx_fp' for activations of 16 bits"),
        ({"act_bits": 8}, "activations of 8 bits"),
        ({"extra_config": [1]}, r"extra_config is \[1\], expected an object"),
        ({"extra_config": {"a": 1}}, "extra_config 'a' is 1, expected an object"),
        ({"extra_config": {"a": {"bits": 11}}}, "found bits 11"),
        ({"extra_config": {"(": {}}}, "neither a module nor a pattern"),
    ],
)
def test_settings_that_no_format_has(opened, changes, message):
    tensors, _ = module("auto_gptq-4bit")
    with pytest.raises(FormatError, match=message):
        opened(CONFIG | changes, layer=tensors)
