"""Every ggml type decodes what llama.cpp wrote and what gguf-py decodes, bit for bit."""

import json
from pathlib import Path

import gguf
import numpy
import pytest
import torch
from aphrodite_kernels.layouts import GgmlBlocks, GgmlType
from aphrodite_kernels.layouts.ggml.decoders import DECODERS
from aphrodite_kernels.testing import random_blocks

FILES = [numpy.load(path) for path in sorted((Path(__file__).parent / "golden").glob("gguf*.npz"))]
GOLDEN = {name: file[name] for file in FILES for name in file.files}
UNWRITTEN = {GgmlType.IQ2_S, GgmlType.MXFP4, GgmlType.NVFP4, GgmlType.Q1_0}
"""Of which llama.cpp's quantiser left no golden rows."""
UNDECODED = {GgmlType.Q1_0}
"""Of which gguf-py 0.19 has no decoder."""


@pytest.mark.parametrize("kind", sorted(set(DECODERS) - UNWRITTEN), ids=lambda kind: kind.name)
def test_rows_that_llama_cpp_quantised(kind):
    meta = json.loads(GOLDEN[f"{kind.name}.meta"].tobytes())
    assert meta["type_id"] == kind
    weight = GgmlBlocks(torch.from_numpy(GOLDEN[f"{kind.name}.data"]), kind)
    assert weight.in_features == meta["columns"]
    assert torch.equal(weight.dequantize(), torch.from_numpy(GOLDEN[f"{kind.name}.dequantized"]))


@pytest.mark.parametrize("kind", sorted(set(DECODERS) - UNDECODED), ids=lambda kind: kind.name)
def test_random_blocks(kind):
    weight = random_blocks(kind, 8, 2048, torch.Generator().manual_seed(0))
    oracle = gguf.quants.dequantize(weight.data.numpy(), gguf.GGMLQuantizationType(kind))
    assert numpy.array_equal(weight.dequantize().numpy(), oracle)


@pytest.mark.parametrize("kind", [GgmlType.MXFP4, GgmlType.NVFP4], ids=lambda kind: kind.name)
def test_every_scale_byte(kind):
    scales = numpy.arange(256, dtype=numpy.uint8).repeat(kind.block_bytes).reshape(256, -1)
    scales[:, 4:] = numpy.arange(kind.block_bytes - 4)
    with numpy.errstate(over="ignore"):  # the largest exponent of MXFP4 gives infinities
        oracle = gguf.quants.dequantize(scales, gguf.GGMLQuantizationType(kind))
    ours = GgmlBlocks(torch.from_numpy(scales), kind).dequantize().numpy()
    assert numpy.array_equal(ours, oracle)


def test_signs_of_q1_0():
    half = numpy.frombuffer(numpy.float16(0.75).tobytes(), numpy.uint8)
    bits = numpy.random.default_rng(0).integers(0, 2, (5, 128))
    packed = numpy.packbits(bits.astype(numpy.uint8), axis=1, bitorder="little")
    blocks = numpy.concatenate((numpy.tile(half, (5, 1)), packed), axis=1)
    weight = GgmlBlocks(torch.from_numpy(blocks), GgmlType.Q1_0)
    assert numpy.array_equal(weight.dequantize().numpy(), numpy.where(bits, 0.75, -0.75))


def test_every_type_of_weights_is_decoded():
    plain = {kind for kind in GgmlType if kind.block_size == 1}
    assert set(DECODERS) == set(GgmlType) - plain - {GgmlType.Q8_1, GgmlType.Q8_K}


def test_names_and_sizes_are_those_of_gguf_py():
    ours = {(kind.value, kind.name, (kind.block_size, kind.block_bytes)) for kind in GgmlType}
    theirs = {
        (kind.value, kind.name, gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType
    }
    assert ours >= theirs
