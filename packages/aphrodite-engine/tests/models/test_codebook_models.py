"""Models of few bits a weight equal transformers with the numbers that their tensors stand for."""

import json

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_quant import Weights, open_checkpoint
from safetensors.torch import load_file, save_file

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
CONFIG = {
    "vocab_size": 128, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64,
    "attention_bias": True, "tie_word_embeddings": False,
}  # fmt: skip


def words(codes, bits):
    """[K, N] codes as int32 [K * bits / 32, N], each column a little-endian bit stream."""
    streams = [sum(c << bits * k for k, c in enumerate(column)) for column in codes.T.tolist()]
    data = [bytearray(stream.to_bytes(len(codes) * bits // 8, "little")) for stream in streams]
    return torch.stack([torch.frombuffer(part, dtype=torch.int32) for part in data], 1)


def bitnet(rows, columns, generator):
    packed = sum(
        torch.randint(3, (rows // 4, columns), generator=generator) << 2 * i for i in range(4)
    )
    return {"weight": packed.to(torch.uint8), "weight_scale": torch.tensor([12.5]).bfloat16()}


def squeezellm(rows, columns, generator):
    codes = torch.randint(8, (columns, rows), generator=generator)
    table = torch.randn(rows, 8, generator=generator) / 12
    return {"qweight": words(codes, 3), "lookup_table": table.half()}


def aqlm(rows, columns, generator):
    codes = torch.randint(-128, 128, (rows, columns // 8, 2), generator=generator)
    return {
        "codes": codes.to(torch.int8),
        "codebooks": (torch.randn(2, 256, 1, 8, generator=generator) / 16).half(),
        "scales": (0.5 + torch.rand(rows, 1, 1, 1, generator=generator)).half(),
    }


def exl2(rows, columns, generator):
    runs, start = [(6, 32), (3, 64), (2, columns - 96)], 0
    packed, groups = [], []
    for bits, size in runs:
        packed.append(words(torch.randint(1 << bits, (size, rows), generator=generator), bits))
        groups += [bits, start]
        start += len(packed[-1])
    scale = torch.randint(-(1 << 31), 1 << 31, (len(runs), rows // 8), generator=generator)
    return {
        "q_weight": torch.cat(packed),
        "q_groups": torch.tensor(groups).short(),
        "q_scale": scale.int(),
        "q_scale_max": torch.tensor([0.01, 0.1, 0.2]).half(),
        "q_invperm": torch.randperm(columns, generator=generator).short(),
    }


def exl3(rows, columns, generator):
    rows, columns = (-(-extent // 128) * 128 for extent in (rows, columns))  # padded
    bits = (2, 3, 4, 6)[int(torch.randint(4, (1,), generator=generator))]
    shape = (columns // 16, rows // 16, 16 * bits)
    trellis = torch.randint(-(1 << 15), 1 << 15, shape, generator=generator).short()
    signs = torch.randint(-(1 << 15), 1 << 15, (columns // 16,), generator=generator).short()
    svh = (torch.randn(rows, generator=generator) / 12).half()
    mark = torch.tensor(0xCBAC1FED - (1 << 32)).int()
    return {"trellis": trellis, "su": signs, "svh": svh, "mcg": mark}


def vptq(rows, columns, generator):
    return {
        "indices": torch.randint(
            -(1 << 31), 1 << 31, (1, -(-rows // 6), columns * 12 // 32), generator=generator
        ).int(),
        "centroids.weight": (torch.randn(1, 256 * 6, generator=generator) / 12).half(),
        "res_centroids.weight": (torch.randn(1, 16 * 6, generator=generator) / 24).half(),
        "perm": torch.randperm(columns, generator=generator).short(),
        "weight_scale": (0.5 + torch.rand(columns, generator=generator)).half(),
        "weight_bias": (torch.randn(columns, generator=generator) / 100).half(),
    }


def vptq_settings(rows, columns):
    return {
        "out_features": rows, "group_num": 1, "group_size": columns, "outlier_size": 0,
        "vector_lens": [-1, 6], "num_centroids": [-1, 256], "num_res_centroids": [-1, 16],
    }  # fmt: skip


def quip(rows, columns, generator):
    codes = torch.randint(-(1 << 15), 1 << 15, (rows, columns // 8), generator=generator)
    return {
        "Qidxs": codes.short(),
        "Wscale": torch.tensor(0.06),
        "SU": (torch.randint(2, (columns,), generator=generator) * 2 - 1).half(),
        "SV": (torch.randint(2, (rows,), generator=generator) * 2 - 1).half(),
    }


FORMATS = {
    "bitnet": (bitnet, {"linear_class": "bitlinear"}),
    "squeezellm": (squeezellm, {"wbits": 3}),
    "aqlm": (
        aqlm,
        {
            "num_codebooks": 2, "nbits_per_codebook": 8, "in_group_size": 8, "out_group_size": 1,
            "linear_weights_not_to_quantize": ["lm_head.weight"],
        },
    ),
    "exl2": (exl2, {"bits": 3.0, "head_bits": 6}),
    "exl3": (exl3, {"bits": 4.0, "head_bits": 6}),
    "vptq": (
        vptq,
        {
            "shared_layer_config": {f"{name}_proj": vptq_settings(128, 128) for name in "qkvo"}
            | {f"{name}_proj": vptq_settings(256, 128) for name in ("gate", "up")}
            | {"down_proj": vptq_settings(128, 256)}
        },
    ),
    "QUiP": (quip, {"codebook": "E8P12", "use_rand": False}),
}  # fmt: skip
WITH_HEAD = ("exl2", "exl3")


def written(path, model, method):
    """The checkpoint of a model with packed projections, which the model gets as well."""
    make, settings = FORMATS[method]
    generator = torch.Generator().manual_seed(5)
    tensors = load_file(path / "model.safetensors")
    names = [name for name in tensors if name.endswith("_proj.weight")]
    names += ["lm_head.weight"] if method in WITH_HEAD else []
    for name in names:
        rows, columns = tensors.pop(name).shape
        for leaf, tensor in make(rows, columns, generator).items():
            tensors[f"{name.removesuffix('weight')}{leaf}"] = tensor
    save_file(tensors, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method} | settings
    (path / "config.json").write_text(json.dumps(config))
    weights = Weights.of(open_checkpoint(path))
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in names:
            shape = tuple(parameters[name].shape)
            packed = weights.packed(name.removesuffix(".weight"), shape)
            assert not isinstance(packed, Dense)
            parameters[name].copy_(packed.dequantize())
        return model(torch.tensor([TOKENS])).logits[0]


@pytest.mark.parametrize("method", FORMATS)
def test_a_checkpoint_of_few_bits_is_read(make_checkpoint, both_predict, method):
    from transformers import AutoConfig

    config = CONFIG | ({"intermediate_size": 200} if method == "exl3" else {})
    path, model = make_checkpoint(AutoConfig.for_model("llama", **config))
    expected = written(path, model, method)
    both_predict(path, TOKENS, expected)
