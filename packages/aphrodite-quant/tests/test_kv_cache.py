"""What checkpoints of several tools say of their KV cache."""

import json

import pytest
import torch
from aphrodite_quant import (
    CacheScales,
    CheckpointError,
    TensorError,
    is_cache_scale,
    open_checkpoint,
    read_cache_scales,
    stated_kv_cache,
)
from safetensors.torch import save_file

LAYER = "model.layers.3.self_attn"
STATED = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}


def written(folder, tensors, quantization=None, side=None):
    save_file(tensors, folder / "model.safetensors")
    config = {} if quantization is None else {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    if side is not None:
        (folder / "hf_quant_config.json").write_text(json.dumps(side))
    return open_checkpoint(folder)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("k_scale", "v_scale"), CacheScales(0.5, 0.25)),
        (("attn.k_scale", "attn.v_scale"), CacheScales(0.5, 0.25)),
        (("k_proj.k_scale", "v_proj.v_scale"), CacheScales(0.5, 0.25)),
        (("k_proj.output_scale", "v_proj.output_scale"), CacheScales(0.5, 0.25)),
        (("kv_scale", "q_scale"), CacheScales(0.5, 0.5)),
        (("q_proj.output_scale", "v_scale"), CacheScales(None, 0.25)),
    ],
    ids=str,
)
def test_scales_have_many_names(tmp_path, names, expected):
    weight = {f"{LAYER}.k_proj.weight_scale": torch.ones(1), "lm_head.weight": torch.ones(2, 2)}
    scales = dict(zip((f"{LAYER}.{name}" for name in names), (0.5, 0.25), strict=True))
    tensors = {name: torch.tensor(value) for name, value in scales.items()}
    store = written(tmp_path, tensors | weight).store
    assert read_cache_scales(store) == {3: expected}
    assert {name for name in store.names() if is_cache_scale(name)} == set(scales)


def test_numbers_of_any_dtype_and_form(tmp_path):
    tensors = {
        f"{LAYER}.k_scale": torch.tensor([0.5], dtype=torch.bfloat16),
        f"{LAYER}.v_scale": torch.tensor([[2.0]], dtype=torch.float16),
    }
    assert read_cache_scales(written(tmp_path, tensors).store) == {3: CacheScales(0.5, 2.0)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            torch.ones(4),
            r"'model.layers.3.self_attn.k_scale' is float32 \[4\]; expected one number",
        ),
        (torch.tensor(torch.nan), r"k_scale' is nan; expected a number above 0"),
        (torch.tensor(0.0), r"k_scale' is 0.0; expected a number above 0"),
        (torch.tensor(torch.inf), r"k_scale' is inf; expected a number above 0"),
    ],
)
def test_wrong_scales_are_named(tmp_path, value, message):
    store = written(tmp_path, {f"{LAYER}.k_scale": value}).store
    with pytest.raises(TensorError, match=message):
        read_cache_scales(store)


@pytest.mark.parametrize(
    ("quantization", "side", "expected"),
    [
        (None, None, None),
        ({"quant_method": "compressed-tensors", "kv_cache_scheme": None}, None, None),
        ({"kv_cache_scheme": STATED}, None, "fp8"),
        ({"kv_cache_scheme": STATED | {"type": "int", "num_bits": 4}}, None, "int4"),
        ({"quant_method": "modelopt", "kv_cache_quant_algo": "FP8"}, None, "fp8"),
        ({}, {"quantization": {"kv_cache_quant_algo": "NVFP4"}}, "nvfp4"),
        ({}, {"quantization": {"kv_cache_quant_algo": None}}, None),
        ({}, {"producer": {}}, None),
    ],
)
def test_what_the_cache_should_hold(tmp_path, quantization, side, expected):
    checkpoint = written(tmp_path, {"w": torch.ones(1)}, quantization, side)
    assert stated_kv_cache(checkpoint) == expected


@pytest.mark.parametrize("scheme", [7, {"type": "float"}, {"num_bits": 8, "type": "odd"}])
def test_a_scheme_of_another_form_is_refused(tmp_path, scheme):
    checkpoint = written(tmp_path, {"w": torch.ones(1)}, {"kv_cache_scheme": scheme})
    with pytest.raises(
        CheckpointError, match=r"kv_cache_scheme is .*; expected an object with num"
    ):
        stated_kv_cache(checkpoint)
