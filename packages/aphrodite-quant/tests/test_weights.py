"""Weights under the names a model asks for."""

import pytest
import torch
from aphrodite_quant import TensorError, Weights, open_checkpoint


def test_names_are_mapped_per_module(small_gguf):
    modules = {"model.embed": "plain", "model.layers.0.up": "packed"}
    weights = Weights.of(open_checkpoint(small_gguf), modules.get)
    assert weights.packed("model.embed").dequantize()[1, 31] == 63
    layer = weights.scope("model.layers").scope("0")
    assert layer.packed("up", (2, 32)).out_features == 2
    assert layer.has("up.weight")
    assert not layer.has("up.bias")
    assert not layer.has("down.weight")


def test_tensors_are_float32(small_safetensors):
    weights = Weights.of(open_checkpoint(small_safetensors)).scope("layer")
    assert torch.equal(weights.tensor("bias", (2,)), torch.ones(2))


def test_what_is_missing_or_misshapen_is_named(small_gguf):
    weights = Weights.of(open_checkpoint(small_gguf), {"a": "plain", "b": "packed", "c": "x"}.get)
    for call, message in (
        (lambda: weights.packed("d"), "no weight for 'd'"),
        (lambda: weights.tensor("d.bias"), "no tensor for 'd.bias'"),
        (lambda: weights.packed("c"), r"small.gguf has no tensor 'x.weight'"),
        (lambda: weights.tensor("a.bias"), r"small.gguf has no tensor 'plain.bias'"),
        (lambda: weights.packed("a", (32, 2)), r"'plain' is \[2, 32\], expected \[32, 2\]"),
        (
            lambda: weights.tensor("a.weight", (3,)),
            r"small.gguf: .*float32 \[2, 32\], expected \[3\]",
        ),
        (
            lambda: weights.tensor("b.weight"),
            r"'packed.weight' is Q8_0 \[2, 32\], expected floating",
        ),
    ):
        with pytest.raises(TensorError, match=message):
            call()
