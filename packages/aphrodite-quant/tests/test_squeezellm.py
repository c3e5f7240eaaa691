"""SqueezeLLM: against its definition in whole numbers of Python, and files that are wrong."""

import json

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Lookup
from aphrodite_kernels.layouts.outlying import Outlying
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import save_file


@pytest.fixture
def written(tmp_path):
    """A checkpoint of some tensors of one module, opened."""

    def write(tensors, bits=4, side=False):
        save_file({f"layer.{n}": t for n, t in tensors.items()}, tmp_path / "model.safetensors")
        stated = {} if side else {"quant_method": "squeezellm", "wbits": bits}
        config = {} if side else {"quantization_config": stated}
        (tmp_path / "config.json").write_text(json.dumps(config))
        if side:
            (tmp_path / "quant_config.json").write_text(json.dumps({"wbits": bits}))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def made(bits, rows=24, columns=96):
    """Tensors of a module [rows, columns], and the dense matrix by the definition."""
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(1 << bits, (rows, columns), generator=generator)
    table = torch.randn(rows, 1 << bits, generator=generator).half()
    columns_of = []
    for row in codes.tolist():
        stream = sum(code << bits * k for k, code in enumerate(row))
        data = bytearray(stream.to_bytes(columns * bits // 8, "little"))
        columns_of.append(torch.frombuffer(data, dtype=torch.int32))
    dense = torch.tensor(
        [[float(table[n, c]) for c in row] for n, row in enumerate(codes.tolist())]
    )
    return {"qweight": torch.stack(columns_of, 1), "lookup_table": table}, dense


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("side", [False, True])
def test_it_is_what_the_definition_says(written, bits, side):
    tensors, dense = made(bits)
    found = written(tensors, bits, side).packed("layer", (24, 96))
    assert isinstance(found, Lookup)
    assert torch.equal(found.dequantize(), dense)


def outliers(full):
    """A sparse part of [24, 96], `full` of its rows apart, and its matrix."""
    generator = torch.Generator().manual_seed(3)
    dense = torch.randn(24, 96, generator=generator)
    sparse = torch.where(torch.rand(24, 96, generator=generator) < 0.02, dense, 0)
    sparse[5] = 0
    rows = torch.tensor([20, 3, 11][:full]).int()
    whole = torch.zeros(24, 96)
    whole[rows] = dense[rows]
    placed = [(k, float(v)) for row in sparse for k, v in enumerate(row) if v]
    ends = [int(sparse[:n].count_nonzero()) for n in range(25)]
    tensors = {"rows": torch.tensor(ends).int(), "startrows": torch.zeros(5).int()}
    tensors |= {
        "cols": torch.tensor([k for k, _ in placed]).int(),
        "vals": torch.tensor([v for _, v in placed]),
    }
    if full:
        tensors |= {"full_rows": dense[rows].T.contiguous(), "full_row_indices": rows}
    return tensors, sparse + whole


@pytest.mark.parametrize("full", [0, 1, 3])
def test_outliers_are_added(written, full):
    (tensors, dense), (beside, sparse) = made(4), outliers(full)
    found = written(tensors | beside).packed("layer", (24, 96))
    assert isinstance(found, Outlying)
    torch.testing.assert_close(found.dequantize(), dense + sparse, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vals": None}, "layer.vals"),
        ({"vals": torch.ones(3)}, r"layer.vals' is float32 \[3\]; expected .*\[46\]"),
        ({"rows": torch.zeros(97).int()}, r"rows' is int32 \[97\]; expected int32 \[25\]"),
        ({"rows": torch.zeros(25).int()}, "from 0 to 0; expected numbers that ascend from 0 to 46"),
        ({"cols": torch.full((46,), 96).int()}, "cols' holds 96; expected numbers from 0 to 95"),
        ({"full_row_indices": torch.tensor([24]).int()}, "holds 24; expected numbers from 0 to 23"),
        ({"full_rows": torch.ones(1, 96)}, r"\[1, 96\]; expected floating numbers \[96, 1\]"),
        ({"full_row_indices": None}, "layer.full_row_indices"),
    ],
)
def test_outliers_that_are_wrong_are_named(written, change, message):
    tensors = {n: t for n, t in (made(4)[0] | outliers(1)[0] | change).items() if t is not None}
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        written(tensors).packed("layer")


def test_a_module_that_was_left_alone_is_dense(written):
    assert isinstance(written({"weight": torch.ones(4, 8)}).packed("layer"), Dense)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookup_table": None}, "layer.lookup_table"),
        ({"lookup_table": torch.ones(24, 8)}, r"float32 \[24, 8\]; expected .*\[24, 16\]"),
        ({"lookup_table": torch.full((24, 16), torch.inf)}, "lookup_table' holds inf"),
        ({"qweight": torch.ones(12, 24)}, r"qweight' is float32 .*expected a matrix of int32"),
        ({"qweight": torch.ones(13, 24).int()}, r"int32 \[13, 24\]; expected rows in mult.* of 4"),
    ],
)
def test_what_is_wrong_is_named(written, change, message):
    tensors = {n: t for n, t in (made(4)[0] | change).items() if t is not None}
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        written(tensors).packed("layer")


def test_bits_that_it_does_not_have(written):
    with pytest.raises(FormatError, match="3 or 4 bits, found wbits 2"):
        written(made(3)[0], 2)
