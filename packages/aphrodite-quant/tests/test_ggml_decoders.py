"""Every ggml type decodes what llama.cpp wrote and what gguf-py decodes, bit for bit."""

import json
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from aphrodite_kernels.layouts import GgmlType
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing import random_blocks

GOLDEN = numpy.load(Path(__file__).parent / "golden" / "gguf.npz")


@pytest.mark.parametrize("kind", sorted(DECODERS), ids=lambda kind: kind.name)
def test_rows_that_llama_cpp_quantised(kind):
    from aphrodite_kernels.layouts import GgmlBlocks

    meta = json.loads(GOLDEN[f"{kind.name}.meta"].tobytes())
    assert meta["type_id"] == kind
    weight = GgmlBlocks(torch.from_numpy(GOLDEN[f"{kind.name}.data"]), kind)
    assert weight.in_features == meta["columns"]
    assert torch.equal(weight.dequantize(), torch.from_numpy(GOLDEN[f"{kind.name}.dequantized"]))


@pytest.mark.parametrize("kind", sorted(DECODERS), ids=lambda kind: kind.name)
def test_random_blocks(kind):
    weight = random_blocks(kind, 8, 2048, torch.Generator().manual_seed(0))
    oracle = gguf.quants.dequantize(weight.data.numpy(), gguf.GGMLQuantizationType(kind))
    assert numpy.array_equal(weight.dequantize().numpy(), oracle)


def test_names_and_sizes_are_those_of_gguf_py():
    ours = {(kind.value, kind.name, (kind.block_size, kind.block_bytes)) for kind in GgmlType}
    theirs = {
        (kind.value, kind.name, gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType
    }
    assert ours >= theirs
