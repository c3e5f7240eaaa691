"""Weights that torchao wrote, decoded as it decodes them, and tensors that are wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense, Grouped, Microscaled, Scaled
from aphrodite_quant import ContainerError, TensorError, Weights, open_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

GOLDEN = Path(__file__).parent / "golden"
LAYOUTS = {"int8": Scaled, "float8": Scaled, "intx": Grouped, "int4": Grouped}


def read_cases():
    """Name -> tensors by leaf, the matrix, and the description of the weight."""
    found = {}
    for name in ("torchao", "torchao-blocks"):
        tensors = load_file(GOLDEN / f"{name}.safetensors")
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as reader:
            described = reader.metadata()
        for case, description in described.items():
            start = f"{case}."
            own = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
            found[case] = own, own.pop("effective_weight").float(), json.loads(description)
    return found


CASES = read_cases()


@pytest.fixture
def written(tmp_path):
    """A checkpoint of a golden case with tensors replaced (None: left out), opened."""

    def write(case, changes=(), description=None, **fields):
        tensors, _, stated = CASES[case]
        kept = {n: t for n, t in (tensors | dict(changes)).items() if t is not None}
        stated = (
            stated | {"_data": stated["_data"] | fields} if description is None else description
        )
        text = stated if isinstance(stated, str) else json.dumps(stated)
        metadata = {"layer.weight": text, "layer.bias": '{"_type": "Tensor"}'}
        file = tmp_path / "model.safetensors"
        save_file({f"layer.{n}": t for n, t in kept.items()}, file, metadata)
        config = {"quantization_config": {"quant_method": "torchao"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return Weights.of(open_checkpoint(tmp_path))

    return write


def check(found, expected):
    found = found.dequantize()
    # A zero point is stored as the number that it stands for: a step times the rounding of float32.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


def check_rounded(found, expected):
    """What the kernel rounded to bfloat16, which is half a step of seven bits."""
    torch.testing.assert_close(found.dequantize(), expected, rtol=1.001 * 2.0**-8, atol=1e-6)


@pytest.mark.parametrize("case", sorted(set(CASES) - {"int4-tile"}))
def test_golden_weights_are_decoded(written, case):
    expected = CASES[case][1]
    found = written(case).packed("layer", tuple(expected.shape))
    layout = Grouped if "asym" in case else LAYOUTS.get(case.split("-")[0], Microscaled)
    assert isinstance(found, layout)
    check(found, expected)


def test_tiles_are_decoded_as_the_kernel_multiplies_them(written):
    expected = CASES["int4-tile"][1]
    found = written("int4-tile").packed("layer", (7, 1000))
    assert isinstance(found, Grouped) and found.bits == 4
    check_rounded(found, expected)


def test_a_factor_of_the_inputs_is_one_of_the_columns(written):
    factor = torch.linspace(0.5, 2, 64).half()
    found = written("int4-plain", {"_weight_act_pre_scale": factor}).packed("layer", (16, 64))
    check(found, CASES["int4-plain"][1] * factor.float())


def test_eight_bits_need_no_description(opened):
    weights, expected = opened("torchao-int8wo")
    found = weights.packed("layer", (16, 576))
    assert isinstance(found, Scaled)
    torch.testing.assert_close(found.dequantize(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("sharded", [False, True])
def test_files_that_torch_saved(tmp_path, sharded):
    name = "pytorch_model-1.bin" if sharded else "pytorch_model.bin"
    shutil.copyfile(GOLDEN / "torchao.bin", tmp_path / name)
    cases = ("int8-row", "float8-row", "int4-plain", "int4-tile", "intx-4", "nvfp4")
    if sharded:
        index = {"weight_map": dict.fromkeys([f"{c}.weight" for c in (*cases, "plain")], name)}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = {"quantization_config": {"quant_method": "torchao"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = Weights.of(open_checkpoint(tmp_path))
    for case in cases:
        expected = CASES[case][1]
        found = weights.packed(case, tuple(expected.shape))
        if case == "int4-tile":
            check_rounded(found, expected)
        else:
            check(found, expected)
    assert isinstance(weights.packed("plain"), Dense)


OLDER = load_file(GOLDEN / "torchao-older.safetensors")


@pytest.fixture
def older(tmp_path):
    """Weights that torchao 0.10 saved."""
    shutil.copyfile(GOLDEN / "torchao-older.bin", tmp_path / "pytorch_model.bin")
    config = {"quantization_config": {"quant_method": "torchao"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return Weights.of(open_checkpoint(tmp_path))


@pytest.mark.parametrize("case", sorted(OLDER))
def test_older_classes(older, case):
    found = older.packed(case, tuple(OLDER[case].shape))
    assert isinstance(found, Scaled if case in ("int8-row", "int8-both", "float8-row") else Grouped)
    check(found, OLDER[case])


def test_older_tiles(older):
    check_rounded(older.packed("int4-tile", (7, 1000)), CASES["int4-tile"][1])


def test_tiles_of_a_cpu_are_refused(older):
    """In which order codes lie there is up to the processor that packed them."""
    with pytest.raises(TensorError, match="'AffineQuantizedTensor of Int4CPUAQTTensorImpl', which"):
        older.packed("int4-cpu")


def test_nothing_of_the_tool_is_run_by_a_file(tmp_path):
    """Its names stand for classes that only keep what they are given."""
    data = (GOLDEN / "torchao.bin").read_bytes()
    (tmp_path / "config.json").write_text("{}")
    other = data.replace(
        b"ctorchao.quantization\nInt8Tensor\n", b"ctorchao_quantization\nInt8Tensor\n"
    )
    assert other != data
    (tmp_path / "pytorch_model.bin").write_bytes(other)
    with pytest.raises(ContainerError, match=r"torchao_quantization|not a whole file"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("case", "changes", "fields", "message"),
    [
        ("int8-row", {"_weight_scale": None}, {}, "no tensor 'layer._weight_scale'"),
        ("int8-row", {"_weight_scale": torch.ones(16, 2)}, {}, r"scale' is float32 \[16, 2\]; exp"),
        ("int8-row", {"_weight_scale": torch.full((16, 1), torch.inf)}, {}, "holds inf"),
        ("int8-row", {"_weight_qdata": torch.ones(16, 64)}, {}, "expected a matrix of int8"),
        (
            "int8-row",
            {"_weight_act_pre_scale": torch.ones(63)},
            {},
            r"act_pre_scale' is float32 \[63\]; expected floating numbers \[64\] or \[1, 64\]",
        ),
        ("int8-row", {}, {"block_size": [1, 48]}, r"block_size \[1, 48\]; expected parts of 16 ro"),
        ("int8-row", {}, {"block_size": "1"}, "block_size '1'; expected two whole numbers above 0"),
        ("intx-4", {}, {"target_dtype": "int4"}, "target_dtype 'int4'; expected one of int1 to"),
        (
            "intx-4",
            {"_weight_qdata": torch.full((16, 64), 8, dtype=torch.int8)},
            {},
            "holds 8 and 8; expected integers of 4 bits",
        ),
        ("int4-plain", {}, {"block_size": [2, 32]}, "expected one row and a part of 64 columns"),
        ("int4-plain", {"_weight_scale": torch.zeros(2, 16)}, {}, r"scale' holds a scale of 0\.0"),
        ("int4-tile", {}, {"shape": [9, 1000]}, r"even number of columns within \[8, 1024\]"),
        (
            "int4-tile",
            {"_weight_qdata": torch.ones(1, 8, 32, 2).int()},
            {},
            r"expected int32 \[N / 8, K / 128, 32, 4\]",
        ),
        ("mxfp8-swizzled", {}, {"is_swizzled_scales": False}, r"; expected float8_e8m0fnu \[136,"),
        ("mxfp8", {}, {"is_swizzled_scales": True}, r"tiles of 128 x 4 that cover \[16, 2\]"),
        ("nvfp4", {}, {"block_size": 48}, "block_size 48; expected a part of 64 columns"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(written, case, changes, fields, message):
    with pytest.raises(TensorError, match=rf"model\.safetensors.*{message}"):
        written(case, changes, **fields).packed("layer")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", "its description is no JSON"),
        ([], "of torchao's class None, which is not supported"),
        (
            {"_type": "AbacusTensor", "_data": {}},
            "'AbacusTensor', which is not .* present are Int8T",
        ),
        ({"_type": "Int8Tensor", "_data": 3}, "'Int8Tensor'"),
    ],
)
def test_a_description_that_is_wrong(written, description, message):
    with pytest.raises(TensorError, match=message):
        written("int8-row", description=description).packed("layer")
