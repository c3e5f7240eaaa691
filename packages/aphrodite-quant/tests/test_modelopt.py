"""ModelOpt's weights, made here from the definition of each algorithm in float64."""

import json

import numpy
import pytest
import torch
from aphrodite_quant import CheckpointError, FormatError, TensorError, Weights, open_checkpoint
from safetensors.torch import save_file

ROWS, COLUMNS = 6, 64
E2M1 = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def e4m3(code):
    """OCP 8-bit floating point, section 5.1: 1 sign, 4 exponent (bias 7), 3 mantissa bits."""
    code = code.astype(numpy.int64)
    exponent, mantissa = code >> 3 & 15, code & 7
    size = numpy.where(
        exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7)
    )
    return numpy.where(code & 128, -size, size)


def random(seed=0):
    return numpy.random.default_rng(seed)


def bytes_of(codes, dtype):
    return torch.from_numpy(codes.astype(numpy.uint8)).view(dtype)


def eight_bits(rows=ROWS, columns=COLUMNS):
    """Codes that are all numbers, as stored and as they are."""
    signs = random(1).integers(0, 2, (rows, columns))
    codes = random().integers(0, 127, (rows, columns)) | signs << 7
    return bytes_of(codes, torch.float8_e4m3fn), e4m3(codes)


def four_bits():
    codes = random(2).integers(0, 16, (ROWS, COLUMNS))
    return bytes_of(codes[:, ::2] | codes[:, 1::2] << 4, torch.uint8), E2M1[codes]


def fp8():
    weight, values = eight_bits()
    scale = torch.tensor(0.0123)
    tensors = {"weight": weight, "weight_scale": scale, "input_scale": torch.tensor(0.5)}
    return tensors, values * scale.double().numpy()


def fp8_rows():
    weight, values = eight_bits()
    scale = random(3).uniform(0.01, 0.1, ROWS).astype(numpy.float32)
    tensors = {"weight": weight, "weight_scale": torch.from_numpy(scale)}
    return tensors, values * scale[:, None]


def fp8_blocks():
    weight, values = eight_bits(200, 300)
    scale = random(3).uniform(0.01, 0.1, (2, 3)).astype(numpy.float32)
    wide = scale.astype(float).repeat(128, 0).repeat(128, 1)[:200, :300]
    stored = torch.from_numpy(scale).view(2, 1, 3, 1)
    return {"weight": weight, "weight_scale": stored}, values * wide


def int8():
    values = random(4).integers(-128, 128, (ROWS, COLUMNS))
    scale = random(3).uniform(0.01, 0.1, ROWS).astype(numpy.float32)
    weight = torch.from_numpy(values.astype(numpy.int8))
    return {"weight": weight, "weight_scale": torch.from_numpy(scale)}, values * scale[:, None]


def powers():
    exponents = random(5).integers(115, 130, (ROWS, COLUMNS // 32))
    return bytes_of(exponents, torch.uint8), (2.0 ** (exponents - 127)).repeat(32, 1)


def mxfp8():
    (weight, values), (scale, factors) = eight_bits(), powers()
    return {"weight": weight, "weight_scale": scale}, values * factors


def mxfp4():
    (weight, values), (scale, factors) = four_bits(), powers()
    return {"weight": weight, "weight_scale": scale}, values * factors


def nvfp4():
    weight, values = four_bits()
    codes = random(6).integers(1, 127, (ROWS, COLUMNS // 16))
    outer = torch.tensor(0.00317)
    tensors = {
        "weight": weight, "weight_scale": bytes_of(codes, torch.float8_e4m3fn),
        "weight_scale_2": outer, "input_scale": torch.tensor(0.25),
    }  # fmt: skip
    return tensors, values * e4m3(codes).repeat(16, 1) * outer.double().numpy()


def nvfp4_awq():
    tensors, expected = nvfp4()
    factor = random(7).uniform(0.5, 2, COLUMNS)
    return tensors | {"pre_quant_scale": torch.from_numpy(factor).half()}, (
        expected * factor.astype(numpy.float16)
    )


def int4_rows():
    values = random(8).integers(-8, 8, (ROWS, 128))
    scale = random(3).uniform(0.01, 0.1, (ROWS, 1)).astype(numpy.float32)
    packed = (values[::2] & 15) | (values[1::2] & 15) << 4
    weight = torch.from_numpy(packed.astype(numpy.uint8))
    return {"weight": weight, "weight_scale": torch.from_numpy(scale)}, values * scale


MADE = {
    "FP8": fp8, "FP8_PER_CHANNEL_PER_TOKEN": fp8_rows, "fp8_pb_wo": fp8_blocks, "W8A16": int8,
    "W8A8_SQ_PER_CHANNEL": int8, "MXFP8": mxfp8, "mxfp4": mxfp4, "W4A8_MXFP4_FP8": mxfp4,
    "NVFP4": nvfp4, "W4A16_NVFP4": nvfp4, "W4A8_NVFP4_FP8": nvfp4, "NVFP4_AWQ": nvfp4_awq,
    "W4A16_AWQ": int4_rows,
}  # fmt: skip


def config(**stated):
    return {"quant_method": "modelopt", "producer": {"name": "modelopt"}} | stated


def check(weights, expected, name="layer"):
    found = weights.packed(name, expected.shape).dequantize().double().numpy()
    numpy.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", ["int4-awq", "w4a8-awq", "int8-sq"])
def test_a_factor_of_the_inputs_is_one_of_the_columns(opened, case):
    weights, expected = opened(f"modelopt-awq:{case}")
    found = weights.packed("layer", (16, 256)).dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["modelopt:nvfp4", "modelopt:mxfp8"])
def test_what_the_tool_wrote_is_what_the_tool_decodes(opened, name):
    weights, expected = opened(name)
    found = weights.packed("layer", (16, 64)).dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("algorithm", MADE)
def test_every_algorithm_is_decoded(write_module, algorithm):
    tensors, expected = MADE[algorithm]()
    check(write_module(config(quant_algo=algorithm), tensors), expected)


@pytest.mark.parametrize(
    "stated",
    [
        {"quant_method": "modelopt_fp4", "quant_algo": "NVFP4", "group_size": 16},
        {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}},
    ],
)
def test_where_the_algorithm_may_be_stated(write_module, stated):
    tensors, expected = nvfp4()
    check(write_module(stated, tensors), expected)


def opened(folder, side, tensors):
    """A checkpoint of whose config nothing but a file beside it says what it is."""
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "hf_quant_config.json").write_text(json.dumps(side))
    return Weights.of(open_checkpoint(folder))


def test_a_file_beside_the_weights(tmp_path):
    tensors, expected = nvfp4()
    plain = {f"{name}.weight": torch.ones(2, 2) for name in ("a.b", "lm_head")}
    side = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["a*", "lm_head"]}
    weights = opened(
        tmp_path, {"quantization": side}, plain | {f"x.{leaf}": t for leaf, t in tensors.items()}
    )
    check(weights, expected, "x")
    check(weights, numpy.ones((2, 2)), "a.b")


def test_a_statement_of_the_cache_alone_leaves_weights_plain(tmp_path):
    side = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    check(opened(tmp_path, side, {"x.weight": torch.ones(2, 2)}), numpy.ones((2, 2)), "x")


def test_a_statement_that_is_no_object_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"hf_quant_config.json: quantization is 7, expected"):
        opened(tmp_path, {"quantization": 7}, {"x.weight": torch.ones(2, 2)})


def test_each_module_in_its_own_way(tmp_path):
    made = {"a.q": fp8(), "a.k": nvfp4(), "m.0": mxfp8(), "m.1": int8()}
    layers = {
        "a": {"quant_algo": "NVFP4", "group_size": 16},
        "a.q": {"quant_algo": "FP8"},
        "m*": {"quant_algo": "W8A16"},
        "m.0*": {"quant_algo": "MXFP8", "group_size": 32},
    }
    side = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    tensors = {f"{name}.{leaf}": t for name, (each, _) in made.items() for leaf, t in each.items()}
    tensors |= {"z.weight": torch.ones(2, 2), "y.weight": fp8()[0]["weight"]}
    weights = opened(tmp_path, {"quantization": side}, tensors)
    for name, (_, expected) in made.items():
        check(weights, expected, name)
    check(weights, numpy.ones((2, 2)), "z")
    with pytest.raises(TensorError, match=r"'y.weight' is .*no quant_algo for this module"):
        weights.packed("y")


@pytest.mark.parametrize(
    ("algorithm", "changes", "message"),
    [
        ("FP8", {"weight_scale": None}, "no tensor 'layer.weight_scale'"),
        ("FP8", {"weight_scale": torch.tensor(torch.nan)}, "weight_scale' holds nan; expected"),
        ("FP8", {"weight_scale": torch.ones(6)}, r"weight_scale' is .*\[6\], but .* FP8 states"),
        ("FP8", {"weight_scale": torch.ones(5)}, r"weight_scale' is \[5\], but the scales of"),
        ("FP8", {"input_scale": torch.tensor(0.0)}, "input_scale' holds 0.0; expected numbers abo"),
        ("FP8", {"weight": nvfp4()[0]["weight"]}, r"'layer.weight' is uint8 \[6, 32\], but .* FP8"),
        ("FP8", {"pre_quant_scale": torch.ones(63)}, r"floating numbers \[64\] or \[1, 64\]"),
        ("FP8", {"pre_quant_scale": torch.full((64,), torch.nan)}, "pre_quant_scale' holds nan"),
        ("W4A16_AWQ", {"weight_scale": torch.ones(6, 2)}, r"expected floating numbers \[6, 1\]"),
        ("W4A16_AWQ", {"weight_scale": None}, "no tensor 'layer.weight_scale'"),
        ("W4A16_AWQ", {"weight": torch.ones(6, 60).byte()}, r"\[6, 60\], but .* of 1 x 128"),
        (
            "fp8_pb_wo",
            {"weight_scale": torch.ones(())},
            "weight_scale' is .*: quant_algo fp8_pb_wo states",
        ),
        ("W8A16", {"weight_scale": torch.tensor(1.0)}, "a scale for each channel"),
        (
            "MXFP8",
            {"weight_scale": torch.ones(6, 2)},
            r"is float32 \[6, 2\]; expected uint8 \[6, 2",
        ),
        ("MXFP8", {"weight_scale": torch.full((6, 2), 255, dtype=torch.uint8)}, "holds 255"),
        ("mxfp4", {"weight": torch.zeros(6, 40, dtype=torch.uint8)}, r"\[6, 40\], but .* 1 x 32"),
        ("NVFP4", {"weight_scale_2": None}, "no tensor 'layer.weight_scale_2'"),
        ("NVFP4", {"weight_scale_2": torch.tensor(-1.0)}, "holds -1.0; expected numbers above 0"),
        ("NVFP4", {"weight_scale_2": torch.ones(2)}, r"expected floating numbers \[\] or \[1\]"),
        (
            "NVFP4",
            {"weight_scale": torch.full((6, 4), torch.nan).to(torch.float8_e4m3fn)},
            "weight_scale' holds nan",
        ),
        (
            "NVFP4",
            {"weight_scale": torch.ones(6, 5).to(torch.float8_e4m3fn)},
            r"weight_scale' is .*\[6, 5\]; expected float8_e4m3fn \[6, 4\]",
        ),
    ],
)
def test_what_is_wrong_is_named(write_module, algorithm, changes, message):
    tensors, _ = MADE[algorithm]()
    weights = write_module(config(quant_algo=algorithm), tensors | changes)
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        weights.packed("layer")


@pytest.mark.parametrize("names", [["layer"], ["lay*"], ["*er"], ["re:l.*"]])
@pytest.mark.parametrize("field", ["exclude_modules", "ignore"])
def test_a_module_that_is_excluded_must_be_plain(write_module, field, names):
    stated = config(quant_algo="FP8", **{field: names})
    with pytest.raises(TensorError, match=r"exclude_modules or ignore .* leaves this module unq"):
        write_module(stated, fp8()[0]).packed("layer")
    plain = write_module(stated, {"weight": torch.ones(2, 2)})
    check(plain, numpy.ones((2, 2)))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"quant_algo": "NVFP4_SVD"}, "quant_algo 'NVFP4_SVD' is not supported, present are FP8, "),
        ({"quant_algo": 3}, "quant_algo 3 is not supported"),
        ({"quant_algo": "NVFP4", "group_size": "x"}, "group_size of .* is 'x', expected above 0"),
        ({"quant_algo": "MIXED_PRECISION"}, "quantized_layers of MIXED_PRECISION is None, expecte"),
        (
            {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": 1}},
            "quantized_layers.a is 1, expected an object with a quant_algo",
        ),
        (
            {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"a": {"quant_algo": "NF4"}}},
            "quantized_layers.a: quant_algo 'NF4' is not supported",
        ),
        ({"quant_algo": "FP8", "exclude_modules": "x"}, "exclude_modules is 'x', expected a list"),
    ],
)
def test_settings_that_the_format_does_not_have(write_module, stated, message):
    with pytest.raises(FormatError, match=message):
        write_module(config(**stated), fp8()[0])
