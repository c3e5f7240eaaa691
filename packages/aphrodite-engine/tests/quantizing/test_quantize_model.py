"""The whole road: a model goes in, a checkpoint comes out that runs as its numbers say."""

import copy
import hashlib
import json

import msgspec
import pytest
import torch
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.model import load_model, open_model
from aphrodite_engine.quantizing.job import Job
from aphrodite_engine.quantizing.output import MANIFEST
from aphrodite_engine.quantizing.run import quantize_model
from aphrodite_engine.quantizing.sequences import input_of
from aphrodite_kernels.backends import reference
from aphrodite_quant import FormatError, Weights, open_checkpoint

FORMATS = {
    "fp8": {},
    "fp8:tensor": {},
    "fp8:block": {},
    "int8": {},
    "gptq": {"bits": 4},
    "gptq:": {"bits": 3, "symmetric": False, "act_order": True, "group_size": 32},
    "awq": {"group_size": 32},
    "compressed-tensors": {"symmetric": False},
    "compressed-tensors:rtn": {"bits": 8},
    "mxfp4": {},
    "nvfp4": {},
    "nf4": {},
    "nf4:nested": {},
}
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 35], [2, 7, 1, 8, 2, 8, 1, 8, 2, 8]])


def ignore(label, done, total):
    """Progress that nobody watches."""


@pytest.fixture
def job(tiny, tmp_path):
    """Function (format, **options) -> a job on the tiny model."""
    path, _ = tiny

    def make(name, **options):
        defaults = {
            "model": str(path), "output": str(tmp_path / "out"), "device": "cpu", "length": 32,
            "calibration": str(path / "text.txt"),
        }  # fmt: skip
        return Job(format=name, **defaults | options)

    return make


@torch.inference_mode()
def logits(path):
    backend = reference.create(torch.device("cpu"), threads=None, dtype=None)
    source = open_model(path)
    model = load_model(source, backend, TOKENS.shape[1], lambda read, total: None).model
    return model.logits(model.forward(input_of(TOKENS, source.config, backend)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_result_is_the_model_of_its_numbers(name, tiny, job):
    done = job(name, **FORMATS[name])
    report = quantize_model(done, ignore)
    weights = Weights.of(open_checkpoint(done.output))
    rounded = copy.deepcopy(tiny[1])
    with torch.no_grad():
        for module, layer in rounded.named_modules():
            if module.endswith("_proj"):
                layer.weight.copy_(weights.packed(module).dequantize())
            elif "norm" in module:
                layer.weight.copy_(weights.tensor(f"{module}.weight"))
        expected = rounded(TOKENS).logits.flatten(0, 1)
        plain = tiny[1](TOKENS).logits.flatten(0, 1)
    found = logits(report.output)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)
    assert (plain - expected).abs().max() > 4e-3, "nothing was rounded"
    assert len(report.modules) == 14 and all(0 < one.error < 0.3 for one in report.modules)
    assert report.perplexity is not None
    assert report.perplexity.after == pytest.approx(report.perplexity.before, rel=0.2)


def test_what_a_killed_run_finished_is_kept(job, tmp_path):
    def stop(label, done, total):
        if done == 10:
            raise KeyboardInterrupt

    whole = job("fp8", output=str(tmp_path / "whole"), evaluate=False)
    assert quantize_model(whole, ignore).resumed == 0
    parts = job("fp8", output=str(tmp_path / "parts"), evaluate=False)
    with pytest.raises(KeyboardInterrupt):
        quantize_model(parts, stop)
    assert (tmp_path / "parts" / MANIFEST).exists()
    with pytest.raises(ConfigError, match="format was 'fp8'"):
        quantize_model(msgspec.structs.replace(parts, format="int8"), ignore)
    report = quantize_model(parts, ignore)
    assert report.resumed == 1 and len(report.modules) == 14
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def digests(path):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}


def test_side_files_come_along(tiny, job):
    done = job("int8", evaluate=False)
    quantize_model(done, ignore)
    output = open_checkpoint(done.output).path
    assert (output / "tokenizer.json").read_bytes() == (tiny[0] / "tokenizer.json").read_bytes()
    config = json.loads((output / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["quantization_config"]["ignore"] == ["lm_head"]
    assert not (output / MANIFEST).exists()


def test_what_each_module_stores_is_told_to_tools_that_ask(job):
    done = job("exl3:mcg", bits=1, samples=1, evaluate=False)
    quantize_model(done, ignore)
    checkpoint = open_checkpoint(done.output)
    told = json.loads((checkpoint.path / "quantization_config.json").read_text())
    storage = told.pop("tensor_storage")
    config = json.loads((checkpoint.path / "config.json").read_text())
    assert told == config["quantization_config"]
    names = [name for module in storage.values() for name in module["stored_tensors"]]
    assert sorted(names) == sorted(checkpoint.store.names())
    query = storage["model.layers.0.self_attn.q_proj"]
    prefix = "model.layers.0.self_attn.q_proj"
    trellis = {"shape": [8, 8, 16], "n_bytes": 2048, "dtype": "torch.int16"}
    assert query["stored_tensors"][f"{prefix}.trellis"] == trellis
    assert query["stored_tensors"][f"{prefix}.bias"]["shape"] == [64]
    kind = (query["quant_format"], query["bits_per_weight"], query["mcg_multiplier"])
    assert kind == ("exl3", 1, 0xCBAC1FED)
    assert set(storage["model.norm"]) == {"stored_tensors"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "fp7"}, "'fp7'; present are .*fp8, gptq, int8"),
        ({"name": "fp8:row"}, "fp8:row is not known; present are fp8:channel"),
        ({"name": "fp8", "bits": 4}, "format fp8 has no option bits"),
        ({"name": "int8", "calibration": "/nowhere"}, "/nowhere cannot be read"),
        ({"name": "int8", "length": 5000}, "too few for two pieces of 5000"),
    ],
)
def test_what_cannot_be_is_refused(options, message, job):
    with pytest.raises((FormatError, ConfigError), match=message):
        quantize_model(job(**options), ignore)


def test_a_directory_with_something_else_is_left_alone(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("yes")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        quantize_model(job("int8"), ignore)
    with pytest.raises(ConfigError, match="not overwritten"):
        quantize_model(job("int8", overwrite=True), ignore)
    assert (tmp_path / "out" / "precious").read_text() == "yes"
