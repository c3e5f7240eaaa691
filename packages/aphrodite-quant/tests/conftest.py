"""Small checkpoints, written by libraries that are not ours."""

import json
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from aphrodite_quant import Weights, open_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)  # tensors here are small: a second thread would only wait

GOLDEN = Path(__file__).parent / "golden"


def _write_gguf(path, tensors, metadata=(), **writer_options):
    """Tensors: name -> array, or (uint8 array, ggml type). Metadata: (method suffix, arguments)."""
    writer = gguf.GGUFWriter(path, "llama", **writer_options)
    for method, *arguments in metadata:
        getattr(writer, f"add_{method}")(*arguments)
    for name, value in tensors.items():
        data, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def write_gguf():
    """Function (path, tensors, metadata, **writer options) -> path."""
    return _write_gguf


@pytest.fixture
def small_gguf(tmp_path):
    """Two tensors and three kinds of metadata in about 500 bytes."""
    matrix = numpy.arange(64, dtype=numpy.float32).reshape(2, 32)
    kind = gguf.GGMLQuantizationType.Q8_0
    return _write_gguf(
        tmp_path / "small.gguf",
        {
            "plain.weight": matrix,
            "packed.weight": (gguf.quants.quantize(matrix, kind), kind),
        },
        [("uint32", "llama.block_count", 3), ("array", "tokenizer.ggml.tokens", ["a", "ß", ""])],
    )


@pytest.fixture
def small_safetensors(tmp_path):
    """A directory with a config and one file of two tensors."""
    directory = tmp_path / "model"
    directory.mkdir()
    save_file(
        {"layer.weight": torch.arange(8.0).view(2, 4), "layer.bias": torch.ones(2).half()},
        directory / "model.safetensors",
    )
    (directory / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return directory


@pytest.fixture
def write_module(tmp_path):
    """Function (quantization_config, tensors by leaf) -> weights of a checkpoint of one module.

    The module is named `layer`; tensors that are None are left out.
    """

    def write(config, tensors):
        kept = {f"layer.{leaf}": tensor for leaf, tensor in tensors.items() if tensor is not None}
        save_file(kept, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps({"quantization_config": config}))
        return Weights.of(open_checkpoint(tmp_path))

    return write


@pytest.fixture
def opened(write_module):
    """A golden module (`file` or `file:case`), partly replaced; also its effective weight."""

    def write(name, stated=None, **changes):
        name, _, case = name.partition(":")
        file = GOLDEN / f"{name}.safetensors"
        start = f"{case}." if case else ""
        found = {
            n.removeprefix(start): t for n, t in load_file(file).items() if n.startswith(start)
        }
        tensors = found | changes
        expected = tensors.pop("effective_weight")
        with safe_open(file, "pt") as reader:
            config = json.loads(reader.metadata()[case or "quantization_config"]) | (stated or {})
        return write_module(config, tensors), expected

    return write
