"""A model whose checkpoint has q, k, v and gate, up as one matrix each equals transformers."""

import json

import pytest
import torch
from aphrodite_engine.config import EngineConfig
from aphrodite_engine.inspecting.facts import inspect_checkpoint
from aphrodite_kernels.layouts.rotated import Rotated
from aphrodite_quant import Weights, open_checkpoint
from safetensors.torch import load_file, save_file

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
CONFIG = {
    "vocab_size": 128, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
MODULES = {
    "self_attn.qkv_proj": ({"q_proj": 128, "k_proj": 64, "v_proj": 64}, 128),
    "self_attn.o_proj": ({"o_proj": 128}, 128),
    "mlp.upgate_proj": ({"up_proj": 192, "gate_proj": 192}, 128),
    "mlp.down_proj": ({"down_proj": 128}, 192),
}
CODEBOOKS = {"E8P12": (7, 1, 32), "E8P12RVQ3B": (18, 0, 64 / 3), "E8P12RVQ4B": (17, 1, 16)}
"""Identity, version, and weights of a word of codes."""


def module(rows, columns, parts, codebook, generator):
    number, _, size = CODEBOOKS[codebook]
    limits = torch.iinfo(torch.int64)
    shape = (rows, round(columns / size))
    signs = [torch.randint(2, (n,), generator=generator) * 2 - 1 for n in (rows, columns)]
    tensors = {
        "Qidxs": torch.randint(limits.min, limits.max, shape, generator=generator),
        "SV": (signs[0] * 0.06).half(), "SU": signs[1].half(), "Wscale": torch.tensor(1.0).half(),
        "codebook_id": torch.tensor(number),
    }  # fmt: skip
    scales = 0.5 + torch.rand(parts, generator=generator)
    return tensors | ({"fuse_scales": scales.half()} if parts > 1 else {})


def written(path, model, codebook):
    """The checkpoint of a model with fused projections, which the model gets as well."""
    generator = torch.Generator().manual_seed(7)
    kept = load_file(path / "model.safetensors")
    tensors = {name: t for name, t in kept.items() if not name.endswith("_proj.weight")}
    for layer in range(CONFIG["num_hidden_layers"]):
        for name, (parts, columns) in MODULES.items():
            made = module(sum(parts.values()), columns, len(parts), codebook, generator)
            start = f"model.layers.{layer}.{name}"
            tensors |= {f"{start}.{leaf}": tensor for leaf, tensor in made.items()}
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quip_params"] = {
        "codebook": codebook, "codebook_version": CODEBOOKS[codebook][1], "lora_rank": 0
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    weights, parameters = Weights.of(open_checkpoint(path)), dict(model.named_parameters())
    with torch.no_grad():
        for name in set(parameters) - set(tensors):
            stored = weights.packed(name.removesuffix(".weight"), tuple(parameters[name].shape))
            parameters[name].copy_(stored.dequantize())
        return model(torch.tensor([TOKENS])).logits[0]


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_a_fused_checkpoint_is_read(make_checkpoint, both_predict, codebook):
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    expected = written(path, model, codebook)
    both_predict(path, TOKENS, expected)


def test_parts_are_one_product_with_a_kernel(make_checkpoint, native):
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    written(path, model, "E8P12")
    weights = Weights.of(open_checkpoint(path)).scope("model.layers.1")
    for names in (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")):
        place = "self_attn" if "q_proj" in names else "mlp"
        whole = Rotated.stack([weights.packed(f"{place}.{name}") for name in names])
        assert native.multiplies(native.prepare(whole))


def test_inspection_finds_it_sound_and_names_its_kernel(make_checkpoint):
    from transformers import AutoConfig

    path, model = make_checkpoint(AutoConfig.for_model("llama", **CONFIG))
    written(path, model, "E8P12RVQ4B")
    config = EngineConfig(model=str(path), device="cpu", max_num_seqs=1)
    found = inspect_checkpoint(path, config, lambda done, total: None)
    assert found.format == "quip_sharp" and found.problems == []
    kinds = {kind.name: kind for kind in found.kinds}
    fused = kinds["model.layers.*.mlp.upgate_proj"]
    assert (fused.shape, fused.layout, fused.kernel) == ([384, 128], "Rotated", "cpu Rotated")
