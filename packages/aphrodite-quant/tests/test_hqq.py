"""Weights that hqq wrote, decoded as it decodes them, and tensors that are wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped
from aphrodite_kernels.layouts.row_grouped import RowGrouped
from aphrodite_quant import TensorError, Weights, format_name, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = load_file(Path(__file__).parent / "golden" / "hqq.safetensors")
CASES = sorted({name.split(".")[0] for name in GOLDEN})
QMODEL = Path(__file__).parent / "golden" / "hqq-qmodel.pt"
DECODED = load_file(QMODEL.with_suffix(".safetensors"))
COMMON = "4bit-g64-axis1-16x64"


@pytest.fixture
def opened(tmp_path):
    """A golden case with some tensors replaced (None: left out)."""

    def write(case, **changes):
        start = f"{case}."
        own = {n.removeprefix(start): t for n, t in GOLDEN.items() if n.startswith(start)} | changes
        kept = {f"layer.{leaf}": tensor for leaf, tensor in own.items() if tensor is not None}
        expected = kept.pop("layer.effective_weight")
        save_file(kept, tmp_path / "model.safetensors")
        config = {"quantization_config": {"quant_method": "hqq", "skip_modules": ["lm_head"]}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path)), expected

    return write


@pytest.mark.parametrize("case", CASES)
def test_golden_weights_are_decoded(opened, case):
    weights, expected = opened(case)
    found = weights.packed("layer", tuple(expected.shape))
    assert isinstance(found, RowGrouped if "axis0" in case else Grouped)
    assert torch.equal(found.dequantize(), expected)


@pytest.mark.parametrize("case", sorted(DECODED))
def test_what_hqq_itself_saves(tmp_path, case):
    """Modules with settings of their own, scales packed or not; config.json has no word of it."""
    shutil.copyfile(QMODEL, tmp_path / "qmodel.pt")
    (tmp_path / "config.json").write_text("{}")
    checkpoint = open_checkpoint(tmp_path)
    assert format_name(checkpoint) == "hqq"
    weights = Weights.of(checkpoint)
    found = weights.packed(case, tuple(DECODED[case].shape))
    assert isinstance(found, Grouped if case in ("both", "new") else RowGrouped)
    assert torch.equal(found.dequantize(), DECODED[case])
    assert isinstance(weights.packed("plain"), Dense)
    assert torch.equal(weights.tensor("norm.weight"), torch.ones(4))


def test_safetensors_that_state_nothing(opened, tmp_path):
    opened(COMMON)
    (tmp_path / "config.json").write_text("{}")
    assert format_name(open_checkpoint(tmp_path)) == "hqq"


def test_one_scale_for_the_matrix(opened):
    one, three = torch.tensor(0.5).half(), torch.tensor(3.0).half()
    weights, _ = opened("8bit-g64-axis1-16x64", scale=one, zero=three)
    expected = (GOLDEN["8bit-g64-axis1-16x64.W_q"].float() - 3) / 2
    assert torch.equal(weights.packed("layer", (16, 64)).dequantize(), expected)


def test_a_skipped_module_is_plain(opened):
    nothing = {name.split(".")[1]: None for name in GOLDEN if name.startswith(f"{COMMON}.")}
    nothing |= {"effective_weight": torch.ones(2, 4)}
    weights, _ = opened(COMMON, **nothing | {"weight": torch.ones(2, 4)})
    assert isinstance(weights.packed("layer"), Dense)
    with pytest.raises(TensorError, match=r"'layer.weight' is missing, but beside it .*layer.axis"):
        opened(COMMON, W_q=None)[0].packed("layer")


def text(value):
    return torch.tensor(list(value.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": None}, "has no tensor 'layer.scale'"),
        ({"shape": None}, "has no tensor 'layer.shape'"),
        ({"packing": None}, "has no tensor 'layer.packing'"),
        ({"scale": torch.ones(3, 1)}, r"scale' is float32 \[3, 1\]; expected \[G, 1\]"),
        ({"scale": torch.ones(4, 4)}, r"expected \[G, 1\] or \[1, G\] for G groups of 1024"),
        ({"scale": torch.full((16, 1), torch.nan)}, "layer.scale' holds nan"),
        ({"zero": torch.full((16, 1), torch.inf)}, "layer.zero' holds inf"),
        ({"zero": torch.ones(8, 1)}, r"its zero is \[8, 1\]; expected \[16, 1\] as"),
        ({"W_q": torch.ones(8, 64)}, r"W_q' is float32 \[8, 64\]; expected uint8 \[8, 64\]"),
        ({"W_q": torch.ones(9, 64, dtype=torch.uint8)}, r"W_q' is uint8 \[9, 64\]"),
        ({"packing": text("5bit_u8")}, r"packing is '5bit_u8'; expected one of 8bit_u8"),
        ({"packing": torch.ones(7)}, r"its packing is ''; expected one of"),
        ({"shape": torch.tensor([16.0, 64.0])}, r"shape' is float32 \[2\]; expected int64 \[2\]"),
        ({"shape": torch.tensor([-16, -64])}, r"shape is \[-16, -64\]; expected \[N, K\]"),
        ({"quant_scale": torch.tensor(1)}, "quant_scale' says that scales are quantised too"),
        ({"shape": torch.tensor([1024, 1])}, "the tensors of 'layer' fit no layout: rows of"),
    ],
)
def test_what_is_wrong_is_named(opened, changes, message):
    weights, _ = opened(COMMON, **changes)
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        weights.packed("layer")
