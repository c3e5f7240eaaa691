"""A model becomes a GGUF file that runs as its numbers say."""

import gguf
import numpy
import pytest
import torch
from aphrodite_engine.errors import ConfigError
from aphrodite_engine.loading.model import load_model, open_model, weights_of
from aphrodite_engine.quantizing.importance import importance_of
from aphrodite_engine.quantizing.job import Job
from aphrodite_engine.quantizing.run import quantize_model
from aphrodite_engine.quantizing.sequences import input_of
from aphrodite_engine.text.vocabulary import BYTE_ALPHABET
from aphrodite_kernels.backend import backend_for
from aphrodite_quant import FormatError, open_checkpoint

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5, 35]])


def ignore(label, done, total):
    """Progress that nobody watches."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two layers of 64, written by gguf-py, and a text."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_context_length(64)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*sorted(BYTE_ALPHABET, key=BYTE_ALPHABET.get), "th"])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(200)
    shapes = {"token_embd": (257, 64), "output": (257, 64)}
    for layer in range(2):
        for part, shape in {
            "attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64),
            "ffn_gate": (128, 64), "ffn_up": (128, 64), "ffn_down": (64, 128),
        }.items():  # fmt: skip
            shapes[f"blk.{layer}.{part}"] = shape
    generator = numpy.random.default_rng(0)
    for name, shape in shapes.items():
        values = generator.normal(0, 0.08, shape).astype(numpy.float32)
        writer.add_tensor(f"{name}.weight", values)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm", "blk.1.attn_norm"):
        writer.add_tensor(f"{name}.weight", numpy.ones(64, numpy.float32))
    writer.add_tensor("blk.1.ffn_norm.weight", numpy.ones(64, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    text = path.with_name("text.txt")
    text.write_text("".join(f"The number {i} follows {i - 1}. " for i in range(60)))
    return path


@pytest.fixture
def job(model, tmp_path):
    """Function (format, **options) -> a job on the model."""

    def make(name, **options):
        defaults = {
            "model": str(model), "output": str(tmp_path / "out.gguf"), "device": "cpu",
            "length": 32, "calibration": str(model.with_name("text.txt")),
        }  # fmt: skip
        return Job(format=name, **defaults | options)

    return make


@torch.inference_mode()
def logits(path):
    backend = backend_for(torch.device("cpu"), threads=1)
    source = open_model(path)
    built = load_model(source, backend, TOKENS.shape[1], lambda read, total: None).model
    return built.logits(built.forward(input_of(TOKENS, source.config, backend)))


@pytest.mark.parametrize(("name", "error"), [("gguf:q8_0", 0.03), ("gguf:q4_k_m", 0.2)])
def test_the_file_runs_nearly_as_the_model(name, error, model, job):
    report = quantize_model(job(name), ignore)
    before, after = logits(model), logits(report.output)
    difference = float((after - before).norm() / before.norm())
    assert error / 20 < difference < error
    assert report.format == name and len(report.modules) == 16
    assert report.bytes_after < 0.3 * report.bytes_before
    assert report.perplexity.after == pytest.approx(report.perplexity.before, rel=0.1)


def test_metadata_come_along(model, job):
    report = quantize_model(job("gguf", evaluate=False), ignore)
    before, after = open_checkpoint(model).metadata, open_checkpoint(report.output).metadata
    assert after == {**before, "general.file_type": 15, "general.quantization_version": 2}


def test_importance_is_what_projections_see(model):
    source = open_model(model)
    backend = backend_for(torch.device("cpu"), threads=1)
    weights = weights_of(source, source.checkpoint.store)
    found = importance_of(source, weights, backend, TOKENS)
    assert len(found) == 14
    embedded = weights.packed("model.embed_tokens", (257, 64)).dequantize()[TOKENS[0]]
    normed = embedded * (embedded.square().mean(1, keepdim=True) + 1e-6).rsqrt()
    expected = normed.square().mean(0)
    for part in "qkv":
        squares = found[f"model.layers.0.self_attn.{part}_proj"]
        torch.testing.assert_close(squares, expected, rtol=2e-2, atol=1e-3)


def test_a_calibration_text_changes_the_weights(job, tmp_path):
    options = {"name": "gguf:q4_0", "evaluate": False}
    weighed = quantize_model(job(**options), ignore)
    plain = quantize_model(
        job(**options, calibration=None, output=str(tmp_path / "plain.gguf")), ignore
    )
    stores = [open_checkpoint(report.output).store for report in (weighed, plain)]
    q, embedding = ([store.read(name) for store in stores] for name in
                    ("blk.0.attn_q.weight", "token_embd.weight"))  # fmt: skip
    assert not torch.equal(*q) and torch.equal(*embedding)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "gguf:q9"}, "gguf:q9 is not known; present are gguf:f32"),
        ({"name": "gguf", "bits": 4}, "format gguf has no option bits"),
        ({"name": "gguf", "output": "/nowhere/out.gguf"}, "its directory does not exist"),
        ({"name": "gguf", "output": "out"}, "the format gguf writes a file"),
    ],
)
def test_what_cannot_be_is_refused(options, message, job):
    with pytest.raises((FormatError, ConfigError), match=message):
        quantize_model(job(**options), ignore)


def test_files_are_not_overwritten_unasked(job, model, tmp_path):
    (tmp_path / "out.gguf").write_text("precious")
    with pytest.raises(ConfigError, match="exists; remove it, or add --overwrite"):
        quantize_model(job("gguf:q8_0"), ignore)
    with pytest.raises(ConfigError, match="is the model itself"):
        quantize_model(job("gguf:q8_0", output=str(model), overwrite=True), ignore)
    quantize_model(job("gguf:q8_0", overwrite=True, evaluate=False), ignore)
    assert open_checkpoint(tmp_path / "out.gguf").metadata["general.file_type"] == 7
