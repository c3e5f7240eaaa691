"""QuIP# as quip-sharp stores it: what its code decodes, parts of fused modules, wrong files."""

import gc
import json
from pathlib import Path

import numpy
import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_quant import CheckpointError, FormatError, TensorError, Weights, open_checkpoint
from aphrodite_quant.formats import quip_sharp
from aphrodite_quant.hadamard import hadamard_base
from safetensors import safe_open
from safetensors.torch import load_file, save_file

FILE = Path(__file__).parent / "golden" / "quip-sharp.safetensors"
GOLDEN = load_file(FILE)
with safe_open(FILE, "pt") as golden_file:
    SETTINGS = {case: json.loads(stated) for case, stated in golden_file.metadata().items()}
ALONE = ["e8p12", "e8p12-scaled", "rvq3b", "rvq4b"]
FUSED = {
    "qkv": ("qkv_proj", {"q_proj": 64, "k_proj": 8, "v_proj": 8}),
    "upgate": ("upgate_proj", {"up_proj": 48, "gate_proj": 48}),
    "upgate-even": ("upgate_proj", {"up_proj": 16, "gate_proj": 16}),
}
"""Of each case: the module, and how many rows of it are whose, in the order of the file."""


def tensors_of(case):
    return {n.removeprefix(f"{case}."): t for n, t in GOLDEN.items() if n.startswith(f"{case}.")}


@pytest.fixture
def write(tmp_path):
    """Function (case, module, changed settings, **changed tensors) -> weights."""

    def written(case, module="layer", stated=None, **changes):
        tensors = tensors_of(case) | changes
        kept = {f"{module}.{n}": t for n, t in tensors.items() if t is not None}
        kept.pop(f"{module}.effective_weight")
        save_file(kept | {"other.weight": torch.ones(4, 8)}, tmp_path / "model.safetensors")
        config = {"quip_params": SETTINGS[case] | (stated or {})}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path))

    return written


@pytest.mark.parametrize("words", [1, 1 << 18])
@pytest.mark.parametrize("case", ALONE)
def test_a_module_is_what_the_tool_decodes(write, monkeypatch, case, words):
    monkeypatch.setattr(quip_sharp, "_AT_ONCE", words)
    found, expected = write(case).packed("layer"), tensors_of(case)["effective_weight"]
    assert isinstance(found, Rotated)
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", FUSED)
def test_parts_of_a_fused_module_are_its_rows_and_stack_to_all_of_it(write, case):
    module, widths = FUSED[case]
    weights, expected = write(case, f"block.{module}"), tensors_of(case)["effective_weight"]
    rows = dict(zip(widths, expected.split(list(widths.values())), strict=True))
    wanted = sorted(rows) if "gate_proj" in rows else list(rows)  # as models have them
    parts = [weights.packed(f"block.{name}", (widths[name], 64)) for name in wanted]
    for name, part in zip(wanted, parts, strict=True):
        torch.testing.assert_close(part.dequantize(), rows[name], rtol=1e-5, atol=1e-6)
    whole = Rotated.stack(parts)
    assert whole.picked is None
    assert torch.equal(whole.dequantize(), weights.packed(f"block.{module}").dequantize())
    torch.testing.assert_close(
        whole.dequantize(), torch.cat([rows[name] for name in wanted]), rtol=1e-5, atol=1e-6
    )


def test_a_part_that_nobody_has_any_more_keeps_nothing_alive(write):
    weights = write("qkv", "block.qkv_proj")
    first = weights.packed("block.q_proj").weight
    assert weights.packed("block.k_proj").weight is not first  # its part was let go
    gc.collect()
    kept = weights.packed("block.q_proj")
    assert weights.packed("block.k_proj").weight is kept.weight


def test_modules_need_not_be_fused_nor_packed(write):
    weights = write("rvq3b", "block.q_proj")
    expected = tensors_of("rvq3b")["effective_weight"]
    found = weights.packed("block.q_proj", (16, 128)).dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert isinstance(weights.packed("other"), Dense)


@pytest.mark.parametrize("order", [12, 20, 28, 36, 52, 60, 108, 140, 156, 172])
def test_matrices_are_those_of_the_tool(order):
    bits = numpy.unpackbits(GOLDEN[f"hadamard.{order}"].numpy(), count=order * order)
    expected = torch.from_numpy(bits).view(order, order) * 2.0 - 1
    found = hadamard_base(order, torch.device("cpu"))
    assert torch.equal(found.sign(), expected)
    torch.testing.assert_close(found @ found.T, torch.eye(order), rtol=0, atol=1e-5)


def test_other_orders_are_not_known():
    assert hadamard_base(44, torch.device("cpu")) is None


def test_the_scale_of_residuals_may_be_the_codebook_s_own(write):
    found = write("rvq4b", stated={"resid_scale_override": -1}).packed("layer").dequantize()
    stated = write("rvq4b", stated={"resid_scale_override": 3.45}).packed("layer").dequantize()
    assert torch.equal(found, stated)
    assert not torch.allclose(found, write("rvq4b").packed("layer").dequantize())


def test_weights_of_nothing_but_zeros_are_zeros(write):
    assert not write("e8p12", Wscale=torch.tensor(0.0)).packed("layer").dequantize().any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Qidxs": None}, "has no tensor 'layer.Qidxs'"),
        ({"Qidxs": None, "Qidxs_0": torch.ones(2, 2)}, "'layer.Qidxs_0' .* save it again, with hf"),
        ({"Qidxs": torch.ones(48, 6)}, r"float32 \[48, 6\]; expected a matrix of int64"),
        ({"Qidxs": torch.ones(40, 6).long()}, r"\[40, 6\]; expected rows in multiples of 16"),
        ({"Qidxs": torch.ones(48, 5).long()}, r"\[48, 5\]; .* columns in multiples of 2"),
        ({"Qidxs": torch.ones(176, 6).long()}, "of 176 channels, for which quip-sharp has no Had"),
        ({"SU": None}, "has no tensor 'layer.SU'"),
        ({"SU": torch.ones(191)}, r"SU' is float32 \[191\]; expected floating numbers \[192\]"),
        ({"SV": None}, "has no tensor 'layer.SV'"),
        ({"SV": torch.full((48,), torch.nan)}, "SV' holds nan; expected finite numbers"),
        ({"Wscale": torch.tensor(torch.inf)}, "Wscale' holds inf; expected finite numbers"),
        ({"codebook_id": torch.tensor(17)}, "codebook_id' holds 17; expected 7, of the codebook"),
        ({"codebook_id": None}, "has no tensor 'layer.codebook_id'"),
    ],
)
def test_what_is_wrong_is_named(write, changes, message):
    changes = dict(changes)
    if "Qidxs" in changes and changes["Qidxs"] is not None and len(changes["Qidxs"]) == 176:
        changes["SV"] = torch.ones(176)
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        write("e8p12", **changes).packed("layer")


@pytest.mark.parametrize(
    ("case", "part", "changes", "message"),
    [
        ("qkv", "k_proj", {"fuse_scales": None}, "has no tensor 'qkv_proj.fuse_scales'"),
        ("qkv", "k_proj", {"fuse_scales": torch.ones(2)}, r"float32 \[2\]; .* numbers \[3\]"),
        ("qkv", "v_proj", {"Qidxs": None}, "has no tensor 'qkv_proj.Qidxs'"),
        (
            "qkv",
            "q_proj",
            {"Qidxs": torch.ones(64, 2).long(), "SV": torch.ones(64)},
            r"int64 \[64, 2\]; expected more rows than 64, which are q's",
        ),
        ("upgate", "up_proj", {"fuse_scales": torch.full((2,), torch.nan)}, "holds nan"),
    ],
)
def test_what_is_wrong_with_a_fused_module_is_named(write, case, part, changes, message):
    weights = write(case, FUSED[case][0], **changes)
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        weights.packed(part)


def test_a_part_of_another_shape_is_named_with_its_file(write):
    with pytest.raises(TensorError, match=r"model.safetensors: .*k_proj' is \[8, 64\], expected"):
        write("qkv", "block.qkv_proj").packed("block.k_proj", (16, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebook": "D4"}, "one of E8P12, E8P12RVQ3B, E8P12RVQ4B, found 'D4'"),
        ({"codebook_version": 0}, "codebook_version of quip_params is 0, expected 1: others pack"),
        ({"lora_rank": 64}, "lora_rank of quip_params is 64, expected 0: low-rank products"),
        ({"outlier_channel_split": True}, "outlier_channel_split of quip_params is True, expected"),
        ({"rescale_WH": 1}, "rescale_WH of quip_params is 1, expected true or false"),
        ({"resid_scale_override": "x"}, "resid_scale_override of quip_params is 'x', expected a"),
    ],
)
def test_settings_that_are_not_read(write, change, message):
    with pytest.raises(FormatError, match=message):
        write("e8p12", stated=change)


def test_settings_are_an_object(tmp_path):
    save_file({"layer.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"quip_params": [1]}')
    with pytest.raises(CheckpointError, match=r"quip_params is \[1\], not an object"):
        Weights.of(open_checkpoint(tmp_path))
