"""Weights that torch saved: read as they are, and nothing that a pickle asks for is run."""

import json
import os
import pickle
import zipfile

import pytest
import torch
from aphrodite_quant import (
    CheckpointError,
    ContainerError,
    TensorError,
    Weights,
    find_format,
    open_checkpoint,
)
from aphrodite_quant.location import find_weights
from safetensors.torch import save_file

TENSORS = {
    "layer.weight": torch.arange(8.0).view(2, 4).bfloat16(),
    "layer.bias": torch.ones(2).half(),
    "other.qweight": torch.arange(6, dtype=torch.int32).view(2, 3),
}


@pytest.fixture
def directory(tmp_path):
    """A directory with a config and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return tmp_path


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "qmodel.pt"])
def test_what_torch_saved_is_read(directory, name, new):
    torch.save(TENSORS, directory / name, _use_new_zipfile_serialization=new)
    (directory / "training_args.bin").write_bytes(b"\x80\x02")
    checkpoint = open_checkpoint(directory)
    assert checkpoint.kind == "pickle"
    assert find_format(checkpoint).__name__.endswith(".dense")
    store = checkpoint.store
    assert list(store.names()) == list(TENSORS)
    for key, expected in TENSORS.items():
        assert (store.info(key).type, store.info(key).shape) == (expected.dtype, expected.shape)
        assert torch.equal(store.read(key), expected)
    weights = Weights.of(checkpoint)
    assert torch.equal(weights.packed("layer").dequantize(), TENSORS["layer.weight"].float())
    with pytest.raises(TensorError, match=rf"{name} has no tensor 'none\.weight'"):
        weights.packed("none")


def test_numbers_stay_in_the_file(directory):
    torch.save({"a.weight": torch.ones(4, 4)}, directory / "pytorch_model.bin")
    store = open_checkpoint(directory).store
    assert store.read("a.weight").data_ptr() == store.read("a.weight").data_ptr()
    store.read("a.weight").add_(1)
    assert torch.equal(open_checkpoint(directory).store.read("a.weight"), torch.ones(4, 4))


def test_parameters_and_views_are_plain_tensors(directory):
    whole = torch.arange(12.0).view(3, 4)
    torch.save({"a": torch.nn.Parameter(whole), "b": whole.T}, directory / "pytorch_model.bin")
    store = open_checkpoint(directory).store
    assert not store.read("a").requires_grad
    assert store.read("b").is_contiguous() and torch.equal(store.read("b"), whole.T)


def test_modules_with_settings(directory):
    inner = {"scale": torch.ones(2), "shape": torch.Size([2, 3]), "type": torch.float16}
    module = {"W_q": torch.zeros(3), "bias": None, "meta": inner}
    torch.save({"a.b": module, "c.weight": torch.ones(2, 2)}, directory / "qmodel.pt")
    opened = open_checkpoint(directory)
    assert list(opened.store.names()) == ["a.b.W_q", "a.b.meta_scale", "c.weight"]
    meta = {"shape": [2, 3], "type": {"_type": "torch.dtype", "_data": "float16"}}
    assert json.loads(opened.metadata["a.b"]) == {"bias": None, "meta": meta}


def write_shards(directory, **changes):
    shards = {"a.weight": "pytorch_model-1.bin", "b.weight": "pytorch_model-2.bin"}
    for number, (name, shard) in enumerate(shards.items()):
        torch.save({name: torch.full((2, 2), float(number))}, directory / shard)
    index = {"weight_map": shards | changes}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_shards_are_one_checkpoint(directory):
    write_shards(directory)
    weights = Weights.of(open_checkpoint(directory))
    assert weights.packed("a").dequantize().tolist() == [[0, 0], [0, 0]]
    assert weights.packed("b").dequantize().tolist() == [[1, 1], [1, 1]]
    names = [file.name for file in find_weights(directory).weight_files()]
    assert names == ["pytorch_model-1.bin", "pytorch_model-2.bin"]
    find_weights(directory).check_files()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"c.weight": "pytorch_model-2.bin"}, "does not hold tensor 'c.weight'"),
        ({"c.weight": "../secret.bin"}, r"'\.\./secret\.bin', which is no bin file beside"),
        ({"c.weight": "model.safetensors"}, "which is no bin file beside the index"),
        ({"c.weight": "gone.bin"}, r"files that are missing: gone\.bin"),
    ],
)
def test_an_index_that_is_wrong(directory, changes, message):
    write_shards(directory, **changes)
    with pytest.raises(ContainerError, match=message):
        open_checkpoint(directory)


def test_a_tensor_in_two_shards_must_be_the_same(directory):
    write_shards(directory)
    both = {"a.weight": torch.zeros(2, 2), "b.weight": torch.ones(2, 2)}
    torch.save(both, directory / "pytorch_model-2.bin")
    assert open_checkpoint(directory).store.read("b.weight").tolist() == [[1, 1], [1, 1]]
    torch.save(both | {"a.weight": torch.ones(2, 2)}, directory / "pytorch_model-2.bin")
    with pytest.raises(
        ContainerError, match=r"model-2\.bin: .*'a.weight' is also in pytorch_model-1"
    ):
        open_checkpoint(directory)


def test_safetensors_are_preferred(directory):
    torch.save({"a.weight": torch.zeros(2, 2)}, directory / "pytorch_model.bin")
    save_file({"a.weight": torch.ones(2, 2)}, directory / "model.safetensors")
    checkpoint = open_checkpoint(directory)
    assert checkpoint.kind == "safetensors"
    assert torch.equal(checkpoint.store.read("a.weight"), torch.ones(2, 2))


class Command:
    """A pickle of it asks for a command to be run."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_code_is_never_run(directory, new):
    proof = directory / "proof"
    hostile = {"a.weight": torch.ones(2, 2), "b": Command(f"touch {proof}")}
    file = directory / "pytorch_model.bin"
    torch.save(hostile, file, _use_new_zipfile_serialization=new)
    with pytest.raises(ContainerError, match=r"pytorch_model\.bin .* would call \w+\.system;"):
        open_checkpoint(directory)
    assert not proof.exists()
    file.write_bytes(pickle.dumps(Command(f"touch {proof}"), protocol=2))
    with pytest.raises(ContainerError, match=r"pytorch_model\.bin .* would call \w+\.system;"):
        open_checkpoint(directory)
    assert not proof.exists()


def test_a_shape_that_the_file_does_not_have(directory):
    wide = torch.ones(1).expand(1 << 20, 1 << 20)
    torch.save({"a.weight": wide}, directory / "pytorch_model.bin")
    with pytest.raises(
        ContainerError, match=r"'a\.weight' .* claims 4398046511104 bytes; .* has 4"
    ):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list; expected tensors by name"),
        ({"model": {"a.b": torch.ones(2)}}, "'model' is a dict; expected tensors by name, or by"),
        ({"a": {"b": [torch.ones(2)]}}, "'a.b' is a list; expected tensors by name"),
        ({"a": {3: torch.ones(2)}}, "'a' is a dict; expected tensors by name"),
        ({3: torch.ones(2)}, "3 is a Tensor; expected tensors by name"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "is torch.complex64 .* expected plain"),
        ({"a": torch.ones(2, device="meta")}, "on meta; expected plain numbers"),
    ],
)
def test_other_things_than_named_tensors(directory, content, message):
    torch.save(content, directory / "pytorch_model.bin")
    with pytest.raises(ContainerError, match=rf"pytorch_model\.bin.*{message}"):
        open_checkpoint(directory)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_file_cut_short(directory, part, new):
    file = directory / "pytorch_model.bin"
    torch.save(TENSORS, file, _use_new_zipfile_serialization=new)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(ContainerError, match=r"pytorch_model\.bin"):
        open_checkpoint(directory)


def test_packed_records_are_refused(directory):
    file = directory / "pytorch_model.bin"
    torch.save({"a.weight": torch.ones(64, 64)}, file)
    with zipfile.ZipFile(file) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    with pytest.raises(ContainerError, match=r"pytorch_model\.bin"):
        open_checkpoint(directory)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer")],
)
def test_impostors(directory, content, message):
    (directory / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"pytorch_model\.bin is .*{message}"):
        open_checkpoint(directory)


def test_which_file_is_meant(directory):
    for name in ("a.bin", "b.bin"):
        torch.save(TENSORS, directory / name)
    with pytest.raises(CheckpointError, match=r"several files of weights .*: a\.bin, b\.bin"):
        open_checkpoint(directory)
    with pytest.raises(CheckpointError, match=r"a\.bin: give the directory"):
        open_checkpoint(directory / "a.bin")
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has a\.bin, b\.bin but no config\.json"):
        open_checkpoint(directory)
