"""Quark's weights, made here from their definition in float64."""

from dataclasses import replace

import numpy
import pytest
import torch
from aphrodite_quant import FormatError, TensorError

ROWS, COLUMNS = 6, 64
E2M1 = numpy.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
RANDOM = numpy.random.default_rng(7)
ROW_SCALE = torch.from_numpy(RANDOM.uniform(0.01, 0.1, ROWS).astype(numpy.float32))
POWERS = RANDOM.integers(115, 130, (ROWS, COLUMNS // 32))
FLOATS = torch.from_numpy(RANDOM.normal(size=(ROWS, COLUMNS))).to(torch.float8_e4m3fn)
INTEGERS = torch.from_numpy(RANDOM.integers(-128, 128, (ROWS, COLUMNS)).astype(numpy.int8))
CODES = RANDOM.integers(0, 16, (ROWS, COLUMNS))

ONE = {"qscheme": "per_tensor", "ch_axis": None}
OF_SCALES = {"is_scale_quant": True}
EACH = {"qscheme": "per_channel", "ch_axis": 0}
MX = {"qscheme": "per_group", "ch_axis": -1, "group_size": 32, "scale_format": "e8m0"}


def eight_bits(weight, scale):
    factors = scale.double().reshape(-1, 1).numpy()
    return {"weight": weight, "weight_scale": scale}, weight.double().numpy() * factors


def with_powers(weight, values):
    scale = torch.from_numpy(POWERS.astype(numpy.uint8))
    expected = values * (2.0 ** (POWERS - 127)).repeat(32, 1)
    return {"weight": weight, "weight_scale": scale}, expected


PACKED = torch.from_numpy((CODES[:, ::2] | CODES[:, 1::2] << 4).astype(numpy.uint8))
MADE = {
    "fp8": ({"dtype": "fp8_e4m3"} | ONE, eight_bits(FLOATS, torch.tensor(0.0123))),
    "fp8 rows": ({"dtype": "fp8_e4m3"} | EACH, eight_bits(FLOATS, ROW_SCALE)),
    "int8": ({"dtype": "int8"} | ONE, eight_bits(INTEGERS, torch.tensor(0.0123))),
    "int8 rows": ({"dtype": "int8"} | EACH, eight_bits(INTEGERS, ROW_SCALE)),
    "mxfp8": ({"dtype": "fp8_e4m3"} | MX, with_powers(FLOATS, FLOATS.double().numpy())),
    "mxfp4": ({"dtype": "fp4"} | MX, with_powers(PACKED, E2M1[CODES])),
}


def config(weight, **stated):
    everywhere = {"weight": weight, "input_tensors": None}
    return {"quant_method": "quark", "global_quant_config": everywhere, "exclude": []} | stated


def check(weights, expected):
    found = weights.packed("layer", expected.shape).dequantize().double().numpy()
    numpy.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", MADE)
def test_every_kind_is_decoded(write_module, name):
    stated, (tensors, expected) = MADE[name]
    zero = torch.zeros(ROWS, dtype=torch.int8) if name == "int8 rows" else None
    check(write_module(config(stated), tensors | {"weight_zero_point": zero}), expected)


@pytest.mark.parametrize(
    "case",
    [
        "uint4-group", "uint4-group-order", "int4-group", "uint4-channel", "int8-group",
        "uint8-channel", "fp6-e2m3", "fp6-e3m2", "mxfp4", "int8-static", "nvfp4",
    ],
)  # fmt: skip
def test_what_the_tool_wrote_is_what_the_tool_decodes(opened, case):
    weights, expected = opened(f"quark:{case}")
    found = weights.packed("layer", tuple(expected.shape)).dequantize().to(expected.dtype)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_a_pattern_has_a_way_of_its_own(write_module):
    stated, (tensors, expected) = MADE["mxfp4"]
    own = {"*ayer": {"weight": stated}, "other*": {"weight": None}}
    check(write_module(config({"dtype": "int8"} | ONE, layer_quant_config=own), tensors), expected)


def test_a_module_that_is_excluded_must_be_plain(write_module):
    stated, (tensors, _) = MADE["fp8"]
    excluding = config(stated, exclude=["lay*"])
    with pytest.raises(TensorError, match=r"exclude .* has 'lay\*', which leaves this module unq"):
        write_module(excluding, tensors).packed("layer")
    check(write_module(excluding, {"weight": torch.ones(2, 2)}), numpy.ones((2, 2)))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("fp8", {"weight_scale": None}, "no tensor 'layer.weight_scale'"),
        (
            "fp8",
            {"weight_scale": torch.tensor(torch.nan)},
            "weight_scale' holds nan; expected finite",
        ),
        ("fp8", {"weight_scale": ROW_SCALE}, "a scale for each tensor"),
        ("fp8", {"weight": INTEGERS}, "'layer.weight' is int8 .* states float of 8 bits"),
        ("fp8 rows", {"input_scale": torch.tensor(-1.0)}, "input_scale' holds -1.0"),
        ("int8", {"weight_zero_point": torch.tensor(3, dtype=torch.int8)}, "zero_point' is int8"),
        (
            "int8",
            {"weight": torch.ones(6, 8, dtype=torch.int32)},
            "weight' is int32 .*expected a m",
        ),
        (
            "mxfp4",
            {"weight_scale": torch.ones(6, 2)},
            r"is float32 \[6, 2\]; expected uint8 \[6, 2",
        ),
        ("mxfp4", {"input_rotation": torch.eye(8)}, "which turns activations and is not supported"),
    ],
)
def test_what_is_wrong_is_named(write_module, name, changes, message):
    stated, (tensors, _) = MADE[name]
    weights = write_module(config(stated), tensors | changes)
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        weights.packed("layer")


def test_scales_of_activations_and_of_scales_are_numbers(opened):
    for name, value in (("input_scale_2", -1.0), ("weight_scale_2", float("nan"))):
        weights, _ = opened("quark:nvfp4", **{name: torch.tensor(value)})
        with pytest.raises(TensorError, match=f"layer.{name}' holds {value}"):
            weights.packed("layer")


def test_a_weight_of_which_nothing_is_stated(write_module):
    with pytest.raises(TensorError, match=r"'layer.weight' is .* states no weight for this module"):
        write_module(config(None), MADE["fp8"][1][0]).packed("layer")


@pytest.mark.parametrize(
    ("weight", "stated", "message"),
    [
        ({"dtype": "int3"} | MX, {}, "weight is int3 per_group, which is not supported; present a"),
        ({"dtype": "fp4"} | EACH, {}, "weight is fp4 per_channel, which is not supported"),
        (None, {"export": {"pack_method": "x"}}, "export.pack_method is 'x', expected one of reor"),
        ({"dtype": "int8"} | EACH | {"ch_axis": 1}, {}, "has ch_axis 1, expected 0"),
        (
            {"dtype": "fp4"} | MX | {"scale_format": "float32"},
            {},
            "scale_format 'float32', expecte",
        ),
        ({"dtype": "fp4"} | MX | {"group_size": None}, {}, "group_size of strategy group is None"),
        (3, {}, "weight is 3, expected an object or a list"),
        ([], {}, "weight is rounded in steps, none, which is not supported"),
        ([{"dtype": "fp4"} | MX, {"dtype": "int4"} | EACH], {}, "fp4 per_group and int4 per_chan"),
        ([{"dtype": "fp4"} | MX, {"dtype": "fp8_e4m3"} | ONE], {}, "and fp8_e4m3 per_tensor, wh"),
        (
            [{"dtype": "fp4"} | MX | {"ch_axis": 0}, {"dtype": "fp8_e4m3"} | ONE | OF_SCALES],
            {},
            "has ch_axis 0, expected 1",
        ),
        (None, {"global_quant_config": 3}, "global_quant_config is 3, expected an object"),
        (None, {"layer_quant_config": [3]}, r"layer_quant_config is \[3\], expected an object"),
        (None, {"layer_type_quant_config": {"Linear": {}}}, "layer_type_quant_config has Linear"),
        (None, {"algo_config": [{"name": "rotation"}]}, "algo_config has 'rotation', which chang"),
    ],
)
def test_settings_that_the_format_does_not_have(write_module, weight, stated, message):
    with pytest.raises(FormatError, match=message):
        write_module(config(weight, **stated), MADE["fp8"][1][0])


class Noted:
    """A store that remembers what was read."""

    def __init__(self, store):
        self.names, self.info, self.store, self.seen = store.names, store.info, store, set()

    def read(self, name):
        self.seen.add(name)
        return self.store.read(name)


@pytest.mark.parametrize("case", ["int8-static", "uint4-group"])
def test_of_what_rounds_activations_nothing_is_left_unread(opened, case):
    rounding = {"input_scale": torch.tensor(0.5), "input_zero_point": torch.tensor(3).char()}
    weights, expected = opened(f"quark:{case}", **rounding)
    noted = Noted(weights.store)
    replace(weights, store=noted).packed("layer", tuple(expected.shape))
    assert noted.seen == set(noted.names())


@pytest.mark.parametrize("leaf", ["input_scale", "input_zero_point"])
def test_activations_are_rounded_with_numbers(opened, leaf):
    weights, _ = opened("quark:uint4-group", **{leaf: torch.tensor(torch.nan)})
    with pytest.raises(TensorError, match=rf"'layer.{leaf}' (holds nan|is not finite)"):
        weights.packed("layer")
