"""gpt-oss's four-bit floats: what transformers decodes of a stack, and files that are wrong."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Microscaled
from aphrodite_quant import TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

GOLDEN = load_file(Path(__file__).parent / "golden" / "mxfp4.safetensors")
BLOCKS, SCALES, EXPECTED = (GOLDEN[name] for name in ("blocks", "scales", "effective_weight"))


@pytest.fixture
def written(tmp_path):
    """A checkpoint of tensors by name, opened."""

    def write(tensors, plain=()):
        save_file(tensors, tmp_path / "model.safetensors")
        stated = {"quant_method": "mxfp4", "modules_to_not_convert": list(plain)}
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": stated}))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def test_each_expert_of_a_stack_is_decoded(written):
    weights = written({"experts.up_blocks": BLOCKS, "experts.up_scales": SCALES})
    for number, expected in enumerate(EXPECTED):
        found = weights.scope("experts.up").packed(str(number), (24, 64))
        assert isinstance(found, Microscaled)
        assert torch.equal(found.dequantize(), expected)


def test_a_matrix_is_decoded(written):
    tensors = {"layer_blocks": BLOCKS[1].clone(), "layer_scales": SCALES[1].clone()}
    found = written(tensors, ["other"]).packed("layer", (24, 64))
    assert torch.equal(found.dequantize(), EXPECTED[1])
    with pytest.raises(TensorError, match=r"'layer_blocks' is uint8 .* has 're:lay', which leaves"):
        written(tensors, ["re:lay"]).packed("layer")


def test_a_module_that_was_left_alone_is_dense(written):
    found = written({"layer.weight": torch.ones(4, 8)}, ["layer"]).packed("layer")
    assert isinstance(found, Dense)


@pytest.mark.parametrize(
    ("module", "changes", "message"),
    [
        ("up", {}, r"up_blocks' is uint8 \[3, 24, 2, 16\], a stack of 3 experts; expected one"),
        ("up.3", {}, r"up_blocks' is uint8 \[3, 24, 2, 16\], which has no expert 3"),
        ("up.0", {"up_scales": None}, "no tensor 'up_scales'"),
        ("up.0", {"up_scales": SCALES[:, :, :1]}, r"uint8 \[3, 24, 1\]; expected uint8 \[3, 24, 2"),
        ("up.0", {"up_scales": SCALES.float()}, r"float32 .*; expected uint8 \[3, 24, 2\]"),
        ("up.0", {"up_scales": torch.full_like(SCALES, 255)}, "'up_scales' holds 255, which is no"),
        ("up.0", {"up_blocks": BLOCKS[..., :8]}, r", 8\]; expected uint8 \[E, N, K / 32, 16\]"),
        ("up.0", {"up_blocks": BLOCKS[0]}, r"\[24, 2, 16\]; expected uint8 \[E, N, K / 32, 16\]"),
        ("up.0", {"up_blocks": BLOCKS.float()}, r"float32 .*; expected uint8 \[E, N,"),
        ("up.0", {"up_blocks": BLOCKS[:, :0]}, r"\[3, 0, 2, 16\]; expected uint8 \[E, N,"),
        ("other", {}, "no tensor 'other.weight'"),
    ],
)
def test_what_is_wrong_is_named(written, module, changes, message):
    tensors = {"up_blocks": BLOCKS, "up_scales": SCALES} | changes
    kept = {name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        written(kept).packed(module)
