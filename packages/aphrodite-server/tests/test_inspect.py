"""`aphrodite inspect`, from the command line."""

import json

import gguf
import numpy as np
import pytest
from aphrodite_server.cli import main


@pytest.fixture
def file(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "oddity")
    matrix = np.random.default_rng(0).normal(size=(64, 256)).astype(np.float32)
    for layer in range(12):
        kind = gguf.GGMLQuantizationType.Q8_0
        data = gguf.quants.quantize(matrix, kind)
        writer.add_tensor(f"blk.{layer}.up.weight", data, raw_dtype=kind)
    writer.add_tensor("norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "odd.gguf"


def test_a_table_for_people(file, capsys):
    assert main(["inspect", str(file), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == [
        "format        gguf",
        "architecture  oddity (model: there is none for this)",
    ]
    head, first, second = lines[6:9]
    assert " ".join(head.split()) == "weight count shape stored bits size layout kernel"
    assert first.split()[:7] == ["blk.*.up", "12", "64", "x", "256", "Q8_0", "8.50"]
    assert first.index("Q8_0") == head.index("stored") == second.index("float32")
    assert any(line.startswith("note: GGUF architecture 'oddity' is not") for line in lines)


def test_json_for_machines(file, capsys):
    assert main(["inspect", str(file), "--device", "cpu", "--json", "--verify"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tensors"] == 13 and len(found["checks"]) == 13
    assert found["kinds"][0]["layout"] == "GgmlBlocks"


def test_wrong_weights_are_an_exit_code(file, capsys):
    raw = bytearray(file.read_bytes())
    raw[-64 * 4 :] = np.full(64, np.nan, np.float32).tobytes()
    file.write_bytes(raw)
    assert main(["inspect", str(file), "--device", "cpu", "--verify"]) == 1
    shown = capsys.readouterr().out
    assert "13 modules decoded and multiplied, 1 wrong" in shown
    assert "wrong: norm: norm.weight holds a NaN or an infinity" in shown


@pytest.mark.parametrize("kept", [10, 400, -100])
def test_a_file_cut_short_is_a_sentence(file, capsys, kept):
    file.write_bytes(file.read_bytes()[:kept])
    assert main(["inspect", str(file), "--device", "cpu", "--verify"]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"aphrodite: error: {file}") and shown.err.count("\n") == 1


def test_nothing_there_is_a_sentence(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "no.gguf")]) == 1
    assert "does not exist; give a path, `demo`, or" in capsys.readouterr().err
