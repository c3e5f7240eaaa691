"""Weights packed for Marlin kernels, dense and 2:4 sparse, decoded as their tools packed them."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = load_file(Path(__file__).parent / "golden" / "marlin.safetensors")
CASES = sorted({name.split(".")[0] for name in GOLDEN})
DENSE, SPARSE = "marlin-g32", "marlin24-4bit-g64"
GROUPS = {DENSE: 32, SPARSE: 64}


def module(case):
    """Tensors of a golden module, and its matrix."""
    start = f"{case}."
    tensors = {n.removeprefix(start): t for n, t in GOLDEN.items() if n.startswith(start)}
    codes, scales = tensors.pop("codes"), tensors.pop("scales")
    group = codes.shape[1] // scales.shape[1]
    return tensors, codes.float() * scales.float().repeat_interleave(group, 1)


@pytest.fixture
def written(tmp_path):
    """A checkpoint of one module (None: left out), opened."""

    def write(config, tensors, side=None):
        kept = {f"layer.{leaf}": t for leaf, t in tensors.items() if t is not None}
        save_file(kept, tmp_path / "model.safetensors")
        stated = {} if config is None else {"quantization_config": config}
        (tmp_path / "config.json").write_text(json.dumps(stated))
        if side is not None:
            (tmp_path / "quantize_config.json").write_text(json.dumps(side))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def config(case):
    if case.startswith("marlin-"):
        return {"quant_method": "marlin", "group_size": int(case.split("-g")[1])}
    _, bits, group = case.split("-", 2)
    sizes = {"bits": int(bits[0]), "group_size": int(group[1:])}
    return {"quant_method": "gptq_marlin_24"} | sizes


@pytest.mark.parametrize("case", CASES)
def test_golden_weights_are_decoded(written, case):
    tensors, expected = module(case)
    found = written(config(case), tensors).packed("layer", tuple(expected.shape))
    assert isinstance(found, Grouped)
    assert torch.equal(found.dequantize(), expected)


@pytest.mark.parametrize("field", [{"is_marlin_format": True}, {"checkpoint_format": "marlin"}])
def test_gptq_may_say_that_it_is_marlin(written, field):
    tensors, expected = module(DENSE)
    stated = {"bits": 4, "group_size": 32} | field
    found = written({"quant_method": "gptq"} | stated, tensors).packed("layer")
    assert torch.equal(found.dequantize(), expected)
    workspace = {"workspace": torch.zeros(16, dtype=torch.int32)}
    found = written(None, tensors | workspace, stated).packed("layer")
    assert torch.equal(found.dequantize(), expected)


def test_gptq_may_say_that_it_is_sparse(written):
    tensors, expected = module(SPARSE)
    stated = {"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "marlin_24"}
    assert torch.equal(written(stated, tensors).packed("layer").dequantize(), expected)


@pytest.mark.parametrize("case", [DENSE, SPARSE])
def test_other_modules_are_plain(written, case):
    found = written(config(case), {"weight": torch.ones(4, 8)}).packed("layer")
    assert isinstance(found, Dense)


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        (DENSE, {"s": None}, "no tensor 'layer.s'"),
        (DENSE, {"s": torch.ones(3, 128)}, r"s' is float32 \[3, 128\]; expected .* \[2, 128\]"),
        (DENSE, {"s": torch.full((2, 128), torch.nan)}, "layer.s' holds nan"),
        (DENSE, {"B": torch.ones(4, 256)}, "expected a matrix of int32"),
        (DENSE, {"B": torch.ones(4, 130).int()}, r"int32 \[4, 130\]; expected \[K / 16, 2 N\]"),
        (DENSE, {"B": torch.ones(3, 256).int()}, "48 input features do not divide into groups"),
        (SPARSE, {"B_meta": None}, "no tensor 'layer.B_meta'"),
        (SPARSE, {"B_meta": torch.ones(4, 64).short()}, r"expected int16 \[4, 128\]"),
        (SPARSE, {"B_meta": torch.zeros(4, 128).short()}, "B_meta' names a feature of four twice"),
        (SPARSE, {"s": torch.full((2, 64), torch.inf)}, "layer.s' holds inf"),
        (SPARSE, {"B_24": torch.ones(4, 100).int()}, r"expected \[K / 32, N \* 4 / 2\]"),
        (SPARSE, {"B_24": torch.ones(3, 128).int()}, "96 input features do not divide into groups"),
    ],
)
def test_what_is_wrong_is_named(written, case, changes, message):
    weights = written(config(case), module(case)[0] | changes)
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        weights.packed("layer")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"quant_method": "marlin", "bits": 8}, "Marlin has 4 bits, found bits 8"),
        ({"quant_method": "marlin", "group_size": 0}, "positive number or -1, found 0"),
        ({"quant_method": "gptq_marlin_24", "bits": 3}, "Marlin 2:4 has 4 or 8 bits, found bits 3"),
        ({"quant_method": "gptq_marlin_24"}, "found bits None"),
    ],
)
def test_settings_that_no_format_has(written, stated, message):
    with pytest.raises(FormatError, match=message):
        written(stated, module(DENSE)[0])
