"""Tiny models that the tools of quantisation formats wrote: logits are those of the tools' own."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_quant import Weights, open_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import Linear

GOLDEN = Path(__file__).parent.parent / "golden"
MODELS = sorted(file.stem for file in GOLDEN.glob("*.safetensors"))
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 35]
ALLOWED = 2e-3
"""Some tools round weights to half precision before they multiply; logits are about 0.7."""


@pytest.fixture
def written(tmp_path):
    """A directory of the golden model, in either container, and the logits of its tool."""

    def write(name, *, pickled=False):
        file = GOLDEN / f"{name}.safetensors"
        tensors = load_file(file)
        expected = tensors.pop("expected.logits")
        if pickled:
            torch.save(tensors, tmp_path / "pytorch_model.bin")
        else:
            save_file(tensors, tmp_path / "model.safetensors")
        with safe_open(file, "pt") as opened:
            config = json.loads(opened.metadata()["config"])
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path, expected

    return write


def logits(made):
    made.start(0, TOKENS)
    return made.step((0, 0, len(TOKENS)))[0]


def plain_model(path):
    """The model as transformers runs it with dequantised weights, and these weights, packed."""
    from transformers import AutoConfig, AutoModelForCausalLM

    checkpoint = open_checkpoint(path)
    stated = {k: v for k, v in checkpoint.config.items() if k != "quantization_config"}
    config = AutoConfig.for_model(**stated)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    source, weights = Weights.of(checkpoint), {}
    linear = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    for name, parameter in model.named_parameters():
        module = name.removesuffix(".weight")
        if module in linear:
            weights[module] = source.packed(module)
            parameter.data.copy_(weights[module].dequantize())
        else:
            parameter.data.copy_(source.tensor(name))
    return model, weights


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_tool(written, decoder_on, backend, native, in_eight_bits, name):
    path, expected = written(name)
    exact, compiled = (logits(decoder_on(path, each)) for each in (backend, native))
    torch.testing.assert_close(exact, expected, rtol=ALLOWED, atol=ALLOWED)
    # Activations that are rounded as the tiles do are all that sets compiled kernels apart.
    model, weights = plain_model(path)
    in_eight_bits(model, weights)
    with torch.no_grad():
        rounded = model(torch.tensor([TOKENS])).logits[0]
    torch.testing.assert_close(compiled, rounded, rtol=1e-4, atol=1e-4)


def test_the_container_makes_no_difference(written, decoder_on, backend):
    path, expected = written("hqq-axis1", pickled=True)
    found = logits(decoder_on(path, backend))
    torch.testing.assert_close(found, expected, rtol=ALLOWED, atol=ALLOWED)
