"""GPTQ and AWQ: against what their tools decode, against the definitions, and hostile files."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped
from aphrodite_quant import FormatError, TensorError, Weights, open_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}
NIBBLES = (0, 2, 4, 6, 1, 3, 5, 7)


@pytest.fixture
def written(tmp_path):
    """A checkpoint of some tensors of one module, opened."""

    def write(config, tensors, side=None, named="quantize_config.json"):
        save_file({f"layer.{n}": t for n, t in tensors.items()}, tmp_path / "model.safetensors")
        stated = {} if config is None else {"quantization_config": config}
        (tmp_path / "config.json").write_text(json.dumps(stated))
        if side is not None:
            (tmp_path / named).write_text(json.dumps(side))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def stream(codes, bits):
    """Rows of codes as little-endian bit streams in int32 words, by whole numbers of Python."""
    rows = [sum(int(code) << bits * k for k, code in enumerate(row)) for row in codes]
    size = codes.shape[1] * bits // 8
    data = b"".join(row.to_bytes(size, "little") for row in rows)
    return torch.frombuffer(bytearray(data), dtype=torch.int32).view(len(rows), -1)


def gptq_tensors(bits=4, group=64, rows=64, columns=128, index=None, offset=1):
    """Tensors of a module [rows, columns], and the dense matrix by the definition."""
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(1 << bits, (rows, columns), generator=generator)
    groups = columns // group
    zero = torch.randint(1, 1 << bits, (groups, rows), generator=generator)
    scales = (torch.rand(groups, rows, generator=generator) + 0.5).half()
    index = torch.arange(columns) // group if index is None else index
    tensors = {
        "qweight": stream(codes, bits).T.contiguous(), "qzeros": stream(zero - offset, bits),
        "scales": scales, "g_idx": index.int(),
    }  # fmt: skip
    return tensors, (scales.float()[index] * (codes.T - zero[index])).T


def awq_tensors(group=64, rows=64, columns=128):
    """Tensors of a module [rows, columns], and the dense matrix by the definition."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(16, (columns, rows), generator=generator)
    zero = torch.randint(16, (columns // group, rows), generator=generator)
    scales = torch.rand(columns // group, rows, generator=generator).half()

    def words(values):
        return stream(values.view(len(values), -1, 8)[..., list(NIBBLES)].flatten(1), 4)

    index = torch.arange(columns) // group
    dense = (scales.float()[index] * (codes - zero[index])).T
    return {"qweight": words(codes), "qzeros": words(zero), "scales": scales}, dense


@pytest.mark.parametrize(("name", "allowed"), [("gptq", 4e-3), ("awq", 4e-3)])
def test_what_a_tool_wrote_is_decoded_as_it_decodes(written, name, allowed):
    file = GOLDEN / f"{name}-int4-g64.safetensors"
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        config = json.loads(opened.metadata()["quantization_config"])
    expected = tensors.pop("effective_weight")
    found = written(config, tensors).packed("layer", tuple(expected.shape)).dequantize()
    assert (found - expected).norm() <= allowed * expected.norm()
    assert (found - expected).abs().max() <= 2 * allowed * expected.abs().max()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_gptq_is_what_the_definition_says(written, bits, version):
    tensors, dense = gptq_tensors(bits, offset=int(version == "gptq"))
    config = GPTQ | {"bits": bits, "checkpoint_format": version}
    found = written(config, tensors).packed("layer", (64, 128))
    assert isinstance(found, Grouped) and found.columns is None
    assert torch.equal(found.dequantize(), dense)


def test_gptq_in_the_order_of_activations(written):
    index = (torch.arange(128) // 32)[torch.randperm(128)]
    tensors, dense = gptq_tensors(group=32, index=index)
    found = written(GPTQ | {"group_size": 32, "desc_act": True}, tensors).packed("layer")
    assert isinstance(found, Grouped) and found.columns is not None
    assert torch.equal(found.dequantize(), dense)


def test_gptq_of_one_group_and_without_an_index(written):
    tensors, dense = gptq_tensors(group=128)
    del tensors["g_idx"]
    found = written(GPTQ | {"group_size": -1}, tensors).packed("layer")
    assert torch.equal(found.dequantize(), dense)


def test_symmetric_zero_points_are_not_kept(written):
    tensors, _ = gptq_tensors()
    tensors["qzeros"] = torch.full_like(tensors["qzeros"], 0x77777777)
    assert written(GPTQ, tensors).packed("layer").zero is None


def test_gptq_with_its_own_file_of_settings(written):
    tensors, dense = gptq_tensors(bits=8)
    found = written(None, tensors, {"bits": 8, "group_size": 64}).packed("layer")
    assert torch.equal(found.dequantize(), dense)


def test_modules_may_differ(written):
    tensors, dense = gptq_tensors(bits=8, group=32)
    dynamic = {"+:other": {"bits": 2}, r"+:la.er$": {"bits": 8, "group_size": 32}}
    found = written(GPTQ | {"dynamic": dynamic}, tensors).packed("layer")
    assert torch.equal(found.dequantize(), dense)
    plain = written(GPTQ | {"dynamic": {"-:layer": {}}}, {"weight": torch.ones(4, 8)})
    assert isinstance(plain.packed("layer"), Dense)


def test_awq_is_what_the_definition_says(written):
    tensors, dense = awq_tensors()
    found = written(AWQ, tensors).packed("layer", (64, 128))
    assert isinstance(found, Grouped)
    assert torch.equal(found.dequantize(), dense)
    older = {"quant_method": "awq", "w_bit": 4, "q_group_size": 64}
    assert torch.equal(written(older, tensors).packed("layer").dequantize(), dense)
    assert isinstance(written(AWQ, {"weight": torch.ones(4, 8)}).packed("layer"), Dense)


def test_awq_with_its_own_file_of_settings(written):
    tensors, dense = awq_tensors()
    side = {"zero_point": True, "w_bit": 4, "q_group_size": 64, "version": "GEMM"}
    found = written(None, tensors, side, "quant_config.json").packed("layer")
    assert torch.equal(found.dequantize(), dense)


GEMV = load_file(GOLDEN / "awq-gemv.safetensors")


def gemv_tensors(case):
    """Tensors of a golden module of another version of AWQ, and its matrix."""
    start = f"{case}."
    tensors = {n.removeprefix(start): t for n, t in GEMV.items() if n.startswith(start)}
    return tensors, tensors.pop("effective_weight")


@pytest.mark.parametrize("case", ["gemv-g64", "gemv_fast-g32", "llm-awq-g64"])
def test_other_versions_of_awq_are_decoded(written, case):
    tensors, expected = gemv_tensors(case)
    version, group = case.rsplit("-g", 1)
    config = AWQ | {"version": version.upper(), "group_size": int(group)}
    found = written(config, tensors).packed("layer", tuple(expected.shape))
    assert isinstance(found, Grouped)
    # The fast version stores scale times zero point in half precision.
    allowed = 0 if version == "gemv" else 2**-10
    torch.testing.assert_close(found.dequantize(), expected, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("case", "changed", "message"),
    [
        ("gemv", {"scales": torch.ones(32, 2)}, r"scales' is float32 \[32, 2\]; expected 3 groups"),
        ("gemv", {"qzeros": torch.ones(32, 3).int()}, r"int32 \[32, 3\]; expected int32 \[32, 2\]"),
        ("gemv", {"qzeros": None}, "no tensor 'layer.qzeros'"),
        ("gemv", {"qweight": torch.ones(32, 20).int()}, "160 input features do not divide into"),
        ("gemv_fast", {"qweight": torch.ones(8, 96).short()}, "expected input features in spans"),
        ("gemv_fast", {"qweight": torch.ones(8, 128).int()}, "expected a matrix of int16"),
        ("gemv_fast", {"scales": torch.full((32, 32), torch.nan)}, "holds nan"),
        ("gemv_fast", {"qzeros": None}, "no tensor 'layer.qzeros'"),
    ],
)
def test_what_is_wrong_in_other_versions_of_awq_is_named(written, case, changed, message):
    group = {"gemv": 64, "gemv_fast": 32}[case]
    tensors = gemv_tensors(f"{case}-g{group}")[0] | changed
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    weights = written(AWQ | {"version": case, "group_size": group}, kept)
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        weights.packed("layer")


@pytest.mark.parametrize("config", [GPTQ, AWQ])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scales": None}, "'layer.scales'"),
        ({"qzeros": None}, "'layer.qzeros'"),
        ({"scales": torch.ones(3, 64)}, r"scales' is float32 \[3, 64\]; expected .* \[2, 64\]"),
        ({"scales": torch.full((2, 64), torch.nan)}, "holds nan; expected finite numbers"),
        ({"qzeros": torch.ones(2, 9).int()}, r"int32 \[2, 9\]; expected int32 \[2, 8\]"),
        ({"qweight": torch.ones(2, 9)}, r"float32 \[2, 9\]; expected a matrix of int32"),
    ],
)
def test_what_is_wrong_is_named(written, config, changed, message):
    make = gptq_tensors if config is GPTQ else awq_tensors
    tensors = {n: t for n, t in (make()[0] | changed).items() if t is not None}
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        written(config, tensors).packed("layer")


@pytest.mark.parametrize("index", [torch.zeros(128), torch.full((128,), 99)])
def test_groups_of_other_sizes_are_refused(written, index):
    tensors = gptq_tensors()[0] | {"g_idx": index.int()}
    with pytest.raises(TensorError, match=r"'layer\.g_idx' does not give each of 2 groups 64"):
        written(GPTQ, tensors).packed("layer")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GPTQ | {"bits": 9}, "2 to 8 bits, found bits 9"),
        (GPTQ | {"group_size": 0}, "positive number or -1, found 0"),
        (GPTQ | {"checkpoint_format": "bitblas"}, "gptq, gptq_v2, found 'bitblas'"),
        (GPTQ | {"dynamic": [1]}, r"dynamic is \[1\], expected an object"),
        (GPTQ | {"dynamic": {"+:(": {}}}, r"no pattern"),
        (GPTQ | {"dynamic": {"+:a": {"bits": 1}}}, "found bits 1"),
        (AWQ | {"bits": 8}, "AWQ has 4 bits, found bits 8"),
        (AWQ | {"version": "ipex"}, "'ipex' is not supported; present are gemm, gemv, gemv_fast"),
        (AWQ | {"group_size": "x"}, "found 'x'"),
    ],
)
def test_settings_that_no_format_has(written, config, message):
    with pytest.raises(FormatError, match=message):
        written(config, gptq_tensors()[0])


@pytest.mark.parametrize("config", [GPTQ | {"group_size": 48}, AWQ | {"group_size": 48}])
def test_groups_that_do_not_divide_are_refused(written, config):
    make = gptq_tensors if config["quant_method"] == "gptq" else awq_tensors
    with pytest.raises(TensorError, match="128 input features do not divide into groups of 48"):
        written(config, make()[0]).packed("layer")


def test_a_width_that_fills_no_words_names_the_file(written):
    tensors = {
        "qweight": torch.ones(16, 60).int(), "qzeros": torch.ones(2, 7).int(),
        "scales": torch.ones(2, 60),
    }  # fmt: skip
    with pytest.raises(TensorError, match=r"model\.safetensors: the tensors of 'layer' fit no"):
        written(GPTQ, tensors).packed("layer")
