"""Which paths are checkpoints, and what is said of those that are not."""

import pytest
import torch
from aphrodite_quant import (
    CheckpointError,
    FormatError,
    Weights,
    find_format,
    format_names,
    open_checkpoint,
)
from aphrodite_quant.location import find_weights
from safetensors.torch import save_file


def test_a_directory_of_safetensors(small_safetensors):
    checkpoint = open_checkpoint(str(small_safetensors))
    assert checkpoint.kind == "safetensors"
    assert checkpoint.config == {"model_type": "llama"}
    assert checkpoint.metadata == {}
    assert checkpoint.side_file("config.json") == small_safetensors / "config.json"
    assert checkpoint.side_file("tokenizer.json") is None
    assert find_format(checkpoint).__name__.endswith(".dense")


def test_a_gguf_file_and_a_directory_that_holds_it(small_gguf):
    for path in (small_gguf, small_gguf.parent):
        checkpoint = open_checkpoint(path)
        assert checkpoint.kind == "gguf"
        assert checkpoint.metadata["llama.block_count"] == 3
        assert checkpoint.config == {}
        assert find_format(checkpoint).__name__.endswith(".gguf")


def test_what_is_known_without_opening_weights(small_gguf, small_safetensors):
    gguf = find_weights(small_gguf.parent)
    assert (gguf.kind, gguf.weight_files()) == ("gguf", (small_gguf,))
    assert gguf.read_metadata()["llama.block_count"] == 3
    directory = find_weights(small_safetensors)
    assert directory.weight_files() == (small_safetensors / "model.safetensors",)
    assert directory.read_metadata() == {}
    gguf.check_files()
    directory.check_files()


def test_the_files_of_an_index(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.saf"}}')
    names = [file.name for file in find_weights(tmp_path).weight_files()]
    assert names == ["1.safetensors", "2.saf", "2.safetensors"]
    with pytest.raises(CheckpointError, match=r"1\.safetensors does not exist"):
        find_weights(tmp_path).check_files()
    outside = '{"weight_map": {"a": "../1.safetensors", "b": "/etc/passwd", "c": 3}}'
    for text in (outside, '{"weight_map": []}'):
        index.write_text(text)
        assert find_weights(tmp_path).weight_files() == ()


def test_a_lone_file_has_no_side_files(small_gguf):
    (small_gguf.parent / "tokenizer.json").write_text("{}")
    assert open_checkpoint(small_gguf).side_file("tokenizer.json") is None
    assert open_checkpoint(small_gguf.parent).side_file("tokenizer.json") is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n<HTML>", "web page"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"PK\x03\x04", "zip archive"),
    ],
)
@pytest.mark.parametrize("name", ["model.gguf", "model.safetensors"])
def test_impostors(tmp_path, content, message, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert name in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="found: nothing"):
        open_checkpoint(tmp_path)
    (tmp_path / "README.md").write_text("weights are elsewhere")
    with pytest.raises(CheckpointError, match=r"found: README.md"):
        open_checkpoint(tmp_path)


def test_several_files_are_ambiguous(small_gguf, small_safetensors):
    (small_gguf.parent / "other.gguf").write_bytes(small_gguf.read_bytes())
    with pytest.raises(CheckpointError, match=r"name one: other.gguf, small.gguf"):
        open_checkpoint(small_gguf.parent)
    weights = small_safetensors / "model.safetensors"
    (small_safetensors / "b.safetensors").write_bytes(weights.read_bytes())
    weights.rename(small_safetensors / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"several files of weights but no"):
        open_checkpoint(small_safetensors)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_parts_without_an_index(tmp_path, kind):
    save = save_file if kind == "safetensors" else torch.save
    names = [f"model-0000{number}-of-00002.{kind}" for number in (1, 2)]
    for number, name in enumerate(names):
        save({f"{number}.weight": torch.full((2, 2), float(number))}, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    weights = Weights.of(open_checkpoint(tmp_path))
    assert [weights.packed(part).dequantize().sum() for part in ("0", "1")] == [0, 4]
    assert [file.name for file in find_weights(tmp_path).weight_files()] == names
    (tmp_path / names[1]).rename(tmp_path / "away")
    with pytest.raises(CheckpointError, match=rf"parts are missing: {names[1]}"):
        open_checkpoint(tmp_path)
    save({"a": torch.ones(2)}, tmp_path / f"other.{kind}")
    (tmp_path / "away").rename(tmp_path / names[1])
    with pytest.raises(CheckpointError, match="several files of weights but no"):
        open_checkpoint(tmp_path)


def test_a_lone_safetensors_file_lacks_its_config(small_safetensors):
    with pytest.raises(CheckpointError, match="give the directory"):
        open_checkpoint(small_safetensors / "model.safetensors")
    (small_safetensors / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config.json"):
        open_checkpoint(small_safetensors)


@pytest.mark.parametrize(
    "text", ["{", "[]", "\xff", "[" * 100_000], ids=["cut", "list", "latin", "deep"]
)
def test_a_config_that_is_no_object(small_safetensors, text):
    (small_safetensors / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config.json"):
        open_checkpoint(small_safetensors)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_description_of_a_hundred_megabytes_is_not_read(small_safetensors, name):
    with (small_safetensors / name).open("wb") as file:
        file.truncate(100 << 20)
    with pytest.raises(CheckpointError, match=rf"{name} has 104857600 bytes; .* 67108864 at most"):
        open_checkpoint(small_safetensors)


def test_an_unknown_quantisation_lists_what_is_present(small_safetensors):
    config = small_safetensors / "config.json"
    config.write_text('{"quantization_config": {"quant_method": "abacus"}}')
    with pytest.raises(FormatError, match=r"'abacus' is not supported; present are .*dense.*gguf"):
        find_format(open_checkpoint(small_safetensors))
    config.write_text('{"quantization_config": "abacus"}')
    with pytest.raises(CheckpointError, match="not an object"):
        find_format(open_checkpoint(small_safetensors))
    config.write_text('{"quantization_config": null}')
    assert find_format(open_checkpoint(small_safetensors))


def test_formats_are_the_files_of_a_folder():
    assert {"dense", "gguf"} <= set(format_names())
