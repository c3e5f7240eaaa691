"""Models of GPTQ and AWQ checkpoints equal transformers with the numbers that these stand for."""

import json

import pytest
import torch
from aphrodite_engine.errors import ModelError
from aphrodite_kernels.layouts import Grouped
from safetensors.torch import load_file, save_file

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
GROUP = 16
CONFIG = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def words(codes, places=range(8)):
    """[R, C] codes as int32 words of eight: place i of a word holds code places[i] of its eight."""
    eights = codes.view(len(codes), -1, 8)[..., list(places)]
    return (eights << 4 * torch.arange(8)).sum(-1).to(torch.uint32).view(torch.int32)


def rounded(weight):
    """Codes [N, K], zero points and scales [N, G] of a matrix, and the matrix that they give."""
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    scale = ((high - low) / 15).half().float()
    zero = (-low / scale).round().clamp(1, 15)
    codes = (groups / scale + zero).round().clamp(0, 15)
    dense = ((codes - zero) * scale).flatten(1)
    return codes.flatten(1).long(), zero[..., 0].long(), scale[..., 0].half(), dense


def gptq(codes, zero, scale):
    return {"qweight": words(codes).T, "qzeros": words(zero.T - 1), "scales": scale.T}


def awq(codes, zero, scale):
    places = (0, 2, 4, 6, 1, 3, 5, 7)
    packed = {"qweight": words(codes.T, places), "qzeros": words(zero.T, places)}
    return packed | {"scales": scale.T}


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_checkpoint_of_four_bits_is_read(
    make_checkpoint, backend, native, decoder_on, in_eight_bits, method
):
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    tensors = load_file(path / "model.safetensors")
    parameters, weights = dict(model.named_parameters()), {}
    with torch.no_grad():
        linear = ("_proj.weight", "lm_head.weight")
        for name in [name for name in tensors if name.endswith(linear)]:
            codes, zero, scale, dense = rounded(tensors.pop(name).float())
            parameters[name].copy_(dense)
            weights[name.removesuffix(".weight")] = Grouped.pack(
                codes.to(torch.uint8), scale, zero.half(), 4, GROUP
            )
            packed = {"awq": awq, "gptq": gptq}[method](codes, zero, scale)
            for leaf, tensor in packed.items():
                tensors[f"{name.removesuffix('weight')}{leaf}"] = tensor.contiguous()
            tensors[f"{name.removesuffix('weight')}bias"] = torch.zeros(len(dense))
        expected = [model(torch.tensor([TOKENS])).logits[0]]
        in_eight_bits(model, weights)
        expected.append(model(torch.tensor([TOKENS])).logits[0])
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4, "group_size": GROUP}
    (path / "config.json").write_text(json.dumps(config))
    # Activations that are rounded as the tiles do are all that sets compiled kernels apart.
    for each, wanted in zip((backend, native), expected, strict=True):
        made = decoder_on(path, each)
        made.start(0, TOKENS)
        found = made.step((0, 0, len(TOKENS)))[0]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_bias_that_is_not_zero_is_not_dropped(make_checkpoint, backend, decoder_on):
    from transformers import AutoConfig

    path, _ = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    tensors = load_file(path / "model.safetensors")
    module = "model.layers.0.self_attn.o_proj"
    codes, zero, scale, _ = rounded(tensors.pop(f"{module}.weight").float())
    packed = gptq(codes, zero, scale) | {"bias": torch.eye(1, 64)[0]}
    tensors |= {f"{module}.{leaf}": tensor.contiguous() for leaf, tensor in packed.items()}
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": GROUP}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=rf"no place for the tensors {module}\.bias"):
        decoder_on(path, backend)
