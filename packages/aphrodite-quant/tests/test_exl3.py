"""EXL3: what its own kernels made of random trellises, and files that are wrong."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.trellis import Trellis
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "golden"
GOLDEN = load_file(FOLDER / "exl3.safetensors") | load_file(FOLDER / "exl3-converter.safetensors")
CASES = sorted(name.removesuffix(".trellis") for name in GOLDEN if name.endswith(".trellis"))
MARKS = {"mcg": 0xCBAC1FED - (1 << 32), "mul1": 0x83DCD12D - (1 << 32)}


@pytest.fixture
def written(tmp_path):
    """A checkpoint of some tensors of one module, opened."""

    def write(stated=(), **tensors):
        names = {f"layer.{name}": tensor for name, tensor in tensors.items()}
        save_file(names, tmp_path / "model.safetensors")
        settings = {"quant_method": "exl3", "bits": 3.0, "head_bits": 6} | dict(stated)
        config = {"quantization_config": settings}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def golden(case):
    """The tensors of a module, as its tool writes them."""
    tensors = {name: GOLDEN[f"{case}.{name}"] for name in ("trellis", "suh", "svh")}
    book = case.split(".")[0]
    return tensors | ({book: torch.tensor(MARKS[book]).int()} if book in MARKS else {})


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_its_kernels(written, case):
    found, expected = written(**golden(case)).packed("layer"), GOLDEN[f"{case}.inner_weight"]
    assert isinstance(found, Trellis) and f"{found.bits:g}bit" == case.split(".", 1)[1]
    inputs, outputs = expected.shape
    assert torch.equal(found.decode()[:outputs, :inputs].T, expected)


def test_products_are_those_of_its_kernels(written):
    found = written(**golden("inst3.3bit")).packed("layer", (128, 256))
    x, y = (GOLDEN[f"inst3.3bit.{name}"].float() for name in "xy")
    error = (x @ found.dequantize().T - y).norm() / y.norm()
    assert error < 1e-3, "more than half precision explains"


def test_signs_of_older_files(written):
    tensors = golden("mcg.2bit")
    signs = {"su": torch.tensor([1, -32768, *[0] * 6]).short(), "sv": torch.full((8,), 2).short()}
    found = written(trellis=tensors["trellis"], mcg=tensors["mcg"], **signs).packed("layer")
    assert torch.nonzero(found.suh == -1).flatten().tolist() == [0, 31]
    assert torch.nonzero(found.svh == -1).flatten().tolist() == [16 * i + 1 for i in range(8)]
    assert (found.suh.abs() == 1).all()


def test_a_module_that_was_left_alone_is_dense(written):
    plain = torch.randn(4, 8, dtype=torch.bfloat16)
    found = written(weight=plain).packed("layer")
    assert isinstance(found, Dense) and torch.equal(found.weight, plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trellis": torch.zeros(8, 8, 72).short()}, r"'layer.trellis' is int16 \[8, 8, 72\]; exp"),
        ({"trellis": torch.zeros(8, 8, 144).short()}, "b from 1 to 8, 1.5, 2.5 or 3.5"),
        ({"trellis": torch.zeros(8, 8, 40).short()}, "2.5 bits, which only .* mul1 .* is mcg"),
        ({"trellis": torch.zeros(8, 8, 32)}, "is float32 .* expected int16"),
        ({"trellis": torch.zeros(4, 8, 32).short()}, "64 x 128 weights; expected multiples of 128"),
        (
            {"suh": torch.ones(64).half()},
            r"'layer.suh' is float16 \[64\]; expected float16 \[128\]",
        ),
        ({"svh": torch.ones(128)}, r"'layer.svh' is float32 .* expected float16 \[128\]"),
        ({"suh": torch.full((128,), torch.nan).half()}, "'layer.suh' holds nan; expected finite"),
        ({"suh": None}, "layer.suh"),
        ({"suh": None, "su": torch.ones(9).short()}, r"'layer.su' .* expected int16 \[8\]"),
        ({"mcg": torch.tensor(5).int()}, "'layer.mcg' holds .*0x5.* expected 0xcbac1fed"),
        ({"mcg": torch.ones(64).int()}, "'layer.mcg' is int32 .* expected one int32"),
        ({"mul1": torch.tensor(5).int()}, "both mcg and mul1"),
    ],
)
def test_what_is_wrong_is_named(written, change, message):
    tensors = {
        name: part for name, part in (golden("mcg.2bit") | change).items() if part is not None
    }
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        written(**tensors).packed("layer")


def test_padding_is_cut_where_the_model_asks(written):
    weights = written(**golden("mcg.2bit"))
    full = weights.packed("layer").dequantize()
    rows, columns = full.shape
    found = weights.packed("layer", (rows - 100, columns - 60)).dequantize()
    torch.testing.assert_close(found, full[: rows - 100, : columns - 60])
    with pytest.raises(
        TensorError, match=rf"'layer' is \[{rows}, {columns}\], expected \[{rows}, 1"
    ):
        weights.packed("layer", (rows, 1 if columns > 128 else 129))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"bits": 0.5}, "bits is a number from 1 to 8, found 0.5"),
        ({"bits": "4"}, "bits is a number from 1 to 8, found '4'"),
        ({"head_bits": 17}, "head_bits is a number from 1 to 16, found 17"),
    ],
)
def test_bits_that_are_impossible(written, stated, message):
    with pytest.raises(FormatError, match=message):
        written(stated, **golden("mcg.2bit"))
