"""Safetensors that the library wrote, whole and sharded, and broken ones."""

import json

import pytest
import torch
from aphrodite_quant import ContainerError, TensorError, Weights, open_checkpoint
from safetensors.torch import save_file

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def test_dtypes_and_shapes(small_safetensors):
    tensors = {
        str(dtype): torch.arange(6).view(2, 3).to(dtype)
        for dtype in (*FLOATS, torch.int8, torch.int32, torch.int64, torch.uint8, torch.bool)
    }
    save_file(tensors, small_safetensors / "model.safetensors")
    store = open_checkpoint(small_safetensors).store
    assert set(store.names()) == set(tensors)
    for name, expected in tensors.items():
        assert store.info(name).type == expected.dtype
        assert store.info(name).shape == (2, 3)
        assert torch.equal(store.read(name), expected)


def test_reading_copies_nothing(small_safetensors):
    store = open_checkpoint(small_safetensors).store
    first, second = (store.read("layer.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr()


@pytest.fixture
def sharded(small_safetensors):
    """Two shards behind an index; returns (directory, function that rewrites the index)."""
    (small_safetensors / "model.safetensors").unlink()
    shards = {
        "a.weight": "model-00001-of-00002.safetensors",
        "b.weight": "model-00002-of-00002.safetensors",
    }
    for number, (name, shard) in enumerate(shards.items()):
        save_file({name: torch.full((2, 2), float(number))}, small_safetensors / shard)

    def write(**changes):
        index = {"metadata": {"total_size": 32}, "weight_map": shards | changes}
        (small_safetensors / "model.safetensors.index.json").write_text(json.dumps(index))

    write()
    return small_safetensors, write


def test_shards_are_one_checkpoint(sharded):
    weights = Weights.of(open_checkpoint(sharded[0]))
    assert weights.packed("a").dequantize().tolist() == [[0, 0], [0, 0]]
    assert weights.packed("b").dequantize().tolist() == [[1, 1], [1, 1]]


def test_a_missing_shard_is_named(sharded):
    directory, _ = sharded
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ContainerError, match=r"missing: model-00002-of-00002.safetensors"):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    "file", ["../secret.safetensors", "/etc/passwd", "a/b", "..", "", 3, "a\\b"]
)
def test_an_index_reaches_only_its_own_directory(sharded, file):
    directory, write = sharded
    write(**{"c.weight": file})
    with pytest.raises(ContainerError, match=r"'c.weight' is said to lie in"):
        open_checkpoint(directory)


def test_an_index_that_names_an_absent_tensor(sharded):
    directory, write = sharded
    write(**{"c.weight": "model-00001-of-00002.safetensors"})
    with pytest.raises(ContainerError, match=r"model-00001-of-00002.*'c.weight'"):
        open_checkpoint(directory)


def test_a_tensor_in_two_shards_must_be_the_same(sharded):
    directory, _ = sharded
    second = directory / "model-00002-of-00002.safetensors"
    both = {"a.weight": torch.zeros(2, 2), "b.weight": torch.ones(2, 2)}
    save_file(both, second)
    assert open_checkpoint(directory).store.read("b.weight").tolist() == [[1, 1], [1, 1]]
    for other in (torch.ones(2, 2), torch.zeros(2, 2).int(), torch.zeros(4)):
        save_file(both | {"a.weight": other}, second)
        with pytest.raises(ContainerError, match=r"00002-of.*'a.weight' is also in model-00001"):
            open_checkpoint(directory)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_without_a_map(sharded, text):
    directory, _ = sharded
    (directory / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ContainerError, match="weight_map"):
        open_checkpoint(directory)


def test_the_length_of_a_header_is_not_taken_for_a_pickle(small_safetensors):
    path = small_safetensors / "model.safetensors"
    tensors = header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'.ljust(0x280))
    path.write_bytes(tensors + bytes(4))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert open_checkpoint(small_safetensors).store.read("a").tolist() == [0]


def header(text):
    return len(text).to_bytes(8, "little") + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"\x10",
        b"\xff" * 64,
        (1 << 40).to_bytes(8, "little") + b"{}",
        header("{"),
        header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}') + b"\0" * 15,
        header('{"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}') + b"\0" * 16,
        header('{"a": {"dtype": "Q9", "shape": [4], "data_offsets": [0, 16]}}') + b"\0" * 16,
        header('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}}') + b"\0" * 16,
    ],
    ids=["short", "garbage", "length", "json", "truncated", "shape", "dtype", "offsets"],
)
def test_broken_files_are_named(small_safetensors, data):
    path = small_safetensors / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ContainerError, match="not whole safetensors") as caught:
        open_checkpoint(small_safetensors)
    assert str(path) in str(caught.value)


def test_a_weight_of_the_wrong_kind(small_safetensors):
    save_file(
        {"a.weight": torch.ones(2, 2, dtype=torch.int8), "b.weight": torch.ones(2)},
        small_safetensors / "model.safetensors",
    )
    weights = Weights.of(open_checkpoint(small_safetensors))
    with pytest.raises(TensorError, match=r"'a.weight' is int8 \[2, 2\]; expected a matrix"):
        weights.packed("a")
    with pytest.raises(TensorError, match=r"'b.weight' is float32 \[2\]; expected a matrix"):
        weights.packed("b")
