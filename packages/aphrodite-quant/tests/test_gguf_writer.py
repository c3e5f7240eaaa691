"""GGUF files that are written here are read by gguf-py and by the reader here."""

import gguf
import numpy
import pytest
import torch
from aphrodite_kernels.layouts import GgmlType
from aphrodite_quant import ContainerError, FormatError, TensorInfo, open_checkpoint
from aphrodite_quant.containers.gguf_writer import write_gguf
from aphrodite_quant.ggml.recipe import RECIPES, find_recipe
from aphrodite_quant.ggml.write import sources_of, write_model

METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 16,
    "llama.rope.freq_base": 10000.0,
    "text": "a ß",
    "flag": True,
    "negative": -3,
    "large": 1 << 40,
    "names": ["a", "ß", ""],
    "numbers": [3, -1, 4],
    "halves": [0.5, 1.5],
    "flags": [True, False],
    "tokenizer.ggml.precompiled_charsmap": [0, 200, 255],
}
TENSORS = {
    "matrix.weight": torch.arange(12.0).reshape(3, 4),
    "vector": torch.arange(5.0).bfloat16(),
    "half": torch.ones(2, 2, 2).half(),
}


def _write(path, metadata=METADATA, tensors=TENSORS):
    infos = [
        TensorInfo(name, path, tensor.dtype, tuple(tensor.shape))
        for name, tensor in tensors.items()
    ]
    write_gguf(path, metadata, infos, lambda info: tensors[info.name])
    return path


@pytest.mark.parametrize("alignment", [32, 8, 4096])
def test_the_reader_here_finds_what_was_written(tmp_path, alignment):
    metadata = METADATA | {"general.alignment": alignment}
    found = open_checkpoint(_write(tmp_path / "a.gguf", metadata))
    assert found.metadata == metadata
    assert list(found.store.names()) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found.store.info(name).type == tensor.dtype
        assert torch.equal(found.store.read(name), tensor)


def test_gguf_py_finds_what_was_written(tmp_path):
    found = gguf.GGUFReader(_write(tmp_path / "a.gguf"))
    kinds = gguf.GGUFValueType
    types = {key: found.fields[key].types for key in METADATA}
    assert types["llama.block_count"] == [kinds.UINT32]
    assert types["llama.rope.freq_base"] == [kinds.FLOAT32]
    assert types["flag"] == [kinds.BOOL]
    assert types["negative"] == [kinds.INT32]
    assert types["large"] == [kinds.INT64]
    assert types["names"] == [kinds.ARRAY, kinds.STRING]
    assert types["numbers"] == [kinds.ARRAY, kinds.INT32]
    assert types["tokenizer.ggml.precompiled_charsmap"] == [kinds.ARRAY, kinds.UINT8]
    assert {key: found.fields[key].contents() for key in METADATA} == METADATA
    tensors = {tensor.name: tensor for tensor in found.tensors}
    assert tensors["matrix.weight"].shape.tolist() == [4, 3]
    assert numpy.array_equal(tensors["matrix.weight"].data, TENSORS["matrix.weight"].numpy())
    assert all(tensor.data_offset % 32 == 0 for tensor in found.tensors)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("a", 1 << 64, "'a' holds a number beyond 64 bits"),
        ("a", ["x", 1], "'a' mixes strings"),
        ("a", None, "'a' holds values of a kind"),
        ("general.alignment", 12, "alignment is 12, expected a power of two"),
    ],
)
def test_values_that_gguf_cannot_hold(tmp_path, key, value, message):
    with pytest.raises(ContainerError, match=message):
        _write(tmp_path / "a.gguf", {key: value})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_is_not_as_announced_leaves_no_file(tmp_path):
    info = TensorInfo("short", tmp_path, torch.float32, (4,))
    with pytest.raises(ContainerError, match=r"'short' was announced as float32 \[4\], 16 bytes"):
        write_gguf(tmp_path / "a.gguf", {}, [info], lambda info: torch.ones(3))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def model(tmp_path):
    """Sixteen layers of two small matrices, the embedding the head."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"token_embd.weight": torch.randn(8, 256, generator=generator)}
    for layer in range(16):
        tensors[f"blk.{layer}.attn_v.weight"] = torch.randn(8, 256, generator=generator)
        tensors[f"blk.{layer}.attn_q.weight"] = torch.randn(8, 256, generator=generator)
        tensors[f"blk.{layer}.attn_norm.weight"] = torch.ones(256)
    tensors["blk.0.narrow.weight"] = torch.randn(8, 96, generator=generator)
    tensors["blk.0.odd.weight"] = torch.randn(8, 40, generator=generator)
    metadata = METADATA | {"split.count": 0}
    return open_checkpoint(_write(tmp_path / "model.gguf", metadata, tensors))


def test_a_model_is_written_by_a_recipe(model, tmp_path):
    path = tmp_path / "small.gguf"
    seen = []
    written = write_model(
        path,
        model.metadata,
        sources_of(model.store),
        find_recipe("Q4_K_M"),
        progress=lambda *counts: seen.append(counts),
    )
    found = open_checkpoint(path)
    types = {name: found.store.info(name).type for name in found.store.names()}
    assert types["token_embd.weight"] == GgmlType.Q6_K
    assert types["blk.0.attn_q.weight"] == GgmlType.Q4_K
    assert types["blk.0.attn_norm.weight"] == torch.float32
    assert types["blk.0.narrow.weight"] == GgmlType.Q5_0
    assert types["blk.0.odd.weight"] == torch.float16
    more = [at for at in range(16) if types[f"blk.{at}.attn_v.weight"] == GgmlType.Q6_K]
    assert more == [0, 1, 4, 7, 10, 13, 14, 15]
    assert found.metadata["general.file_type"] == 15
    assert "split.count" not in found.metadata
    assert seen[-1] == (len(types), len(types))
    errors = {one.name: one.error for one in written}
    assert errors["blk.0.attn_norm.weight"] == 0
    assert 0.05 < errors["blk.0.attn_q.weight"] < 0.09


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_written_and_read(model, tmp_path, name):
    path = tmp_path / "small.gguf"
    counts = {"blk.0.attn_q.weight": torch.arange(256.0)}
    sources = sources_of(model.store)[:7]
    written = write_model(path, model.metadata, sources, find_recipe(name), importance=counts)
    again = sources_of(open_checkpoint(path).store)
    for before, after, entry in zip(sources, again, written, strict=True):
        error = (after.read().float() - before.read()).norm() / before.read().norm()
        assert abs(float(error) - entry.error) < 1e-6


def test_weights_that_a_type_cannot_hold_are_named(model, tmp_path):
    sources = sources_of(model.store)[:2]
    counts = {sources[1].name: -torch.ones(256)}
    with pytest.raises(FormatError, match=r"tensor 'blk.0.attn_v.weight': importance is \[256\]"):
        write_model(tmp_path / "a.gguf", {}, sources, find_recipe("q4_0"), importance=counts)
    with pytest.raises(FormatError, match="gguf:q9 is not known; present are gguf:f32"):
        find_recipe("q9")
