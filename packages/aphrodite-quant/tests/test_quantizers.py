"""What quantisers write, the readers of the same formats read: the nearest numbers there are.

Tensors that the formats' own tools wrote (golden/) come out again from what the readers make of
them.
"""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Grouped, Lookup, Microscaled, Scaled
from aphrodite_kernels.layouts.microscaled import E2M1
from aphrodite_quant import (
    Checkpoint,
    FormatError,
    Options,
    Statistics,
    find_format,
    find_quantizer,
)
from aphrodite_quant.containers.memory import MemoryStore
from aphrodite_quant.grid import Coded
from aphrodite_quant.normal_float import NORMAL_FLOAT
from aphrodite_quant.quantizers import awq, compressed_tensors, gptq
from aphrodite_quant.quantizers.nf4 import dynamic_table
from safetensors import safe_open

ORIGIN = Path("made/here")
SHAPES = {(96, 256)}


def weights():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(96, 256, generator=generator)
    weight *= 10 ** torch.linspace(-3, 1, 96)[:, None]
    weight[7] = 0
    return weight


def statistics(sizes=1.0):
    """Inputs that hang together."""
    generator = torch.Generator().manual_seed(2)
    mixing = torch.randn(256, 256, generator=generator) * torch.logspace(-1, 1, 256)
    x = torch.randn(1000, 256, generator=generator) @ mixing.T * sizes
    x[:, 5] = 0
    return Statistics(x.T @ x / len(x), x.abs().mean(0))


def energy(weight, known):
    return float(((weight.double() @ known.hessian.double()) * weight).sum())


def read_back(quantizer, tensors):
    """As an engine would, from tensors of the module `m`."""
    config = {"quantization_config": quantizer.config(["lm_head"])}
    store = MemoryStore(ORIGIN, {f"m.{name}": tensor for name, tensor in tensors.items()})
    checkpoint = Checkpoint(ORIGIN, "safetensors", store, config, {})
    return find_format(checkpoint).reader(checkpoint)(store, "m")


@pytest.mark.parametrize(
    ("name", "variant", "blocks"),
    [
        ("fp8", "channel", (1, 256)),
        ("fp8", "tensor", (96, 256)),
        ("fp8", "block", (128, 128)),
        ("int8", None, (1, 256)),
    ],
)
def test_eight_bits_are_read_as_they_were_meant(name, variant, blocks):
    plain = weights()
    quantizer = find_quantizer(name).quantizer(Options(variant=variant), SHAPES)
    packed = read_back(quantizer, quantizer.quantize(plain, None))
    assert isinstance(packed, Scaled) and packed.block == blocks
    scale = packed.by_rows().scale.repeat_interleave(blocks[1], 1)[:, :256]
    error = (packed.dequantize() - plain).abs()
    if name == "int8":
        assert (error <= 0.5001 * scale).all()
    else:  # half of the last of four significant bits, or of the smallest step
        assert (error <= torch.maximum(plain.abs() / 15.9, scale / 1000)).all()


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "nf4", "nf4:nested"])
def test_four_bit_floats_are_the_nearest_to_their_scales(name):
    name, _, variant = name.partition(":")
    # Scales of scales reach over few decades.
    plain = torch.nn.functional.normalize(weights()) if variant else weights()
    quantizer = find_quantizer(name).quantizer(Options(variant=variant or None), SHAPES)
    packed = read_back(quantizer, quantizer.quantize(plain, None))
    if isinstance(packed, Lookup):
        table, scale, group = torch.tensor(NORMAL_FLOAT), packed.scale, packed.group
    else:
        assert isinstance(packed, Microscaled)
        table, scale, group = torch.tensor(E2M1), packed.scale.float(), packed.group
        scale = scale if packed.row_scale is None else scale * packed.row_scale
    candidates = table * scale.repeat_interleave(group, 1)[..., None]
    nearest = (candidates - plain[..., None]).abs().amin(-1)
    error = (packed.dequantize() - plain).abs()
    slack = 0.02 if variant == "nested" else 1e-5  # of scales that were rounded afterwards
    assert (error <= nearest + slack * scale.repeat_interleave(group, 1)).all()
    assert float(error.norm() / plain.norm()) < 0.16


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [32, -1])
def test_gptq_loses_less_than_rounding_does(bits, group, symmetric):
    plain, known = torch.randn(96, 256, generator=torch.Generator().manual_seed(3)), statistics()
    lost = []
    for act_order in (False, True):
        options = Options(bits=bits, group_size=group, symmetric=symmetric, act_order=act_order)
        quantizer = find_quantizer("gptq").quantizer(options, SHAPES)
        packed = read_back(quantizer, quantizer.quantize(plain, known))
        assert isinstance(packed, Grouped) and packed.bits == bits
        assert (packed.columns is None) == (not act_order or group == -1)
        lost.append(energy(packed.dequantize() - plain, known))
    independent = Statistics(torch.eye(256), torch.ones(256))
    quantizer = find_quantizer("gptq").quantizer(
        Options(bits=bits, group_size=group, symmetric=symmetric), SHAPES
    )
    rounded = read_back(quantizer, quantizer.quantize(plain, independent))
    assert max(lost) < 0.6 * energy(rounded.dequantize() - plain, known)
    assert lost[1] < lost[0] * 1.05, "the order of activations does not help"


@pytest.mark.parametrize("group", [64, -1])
def test_awq_balances_large_inputs(group):
    plain = torch.randn(96, 256, generator=torch.Generator().manual_seed(3))
    known = statistics(torch.where(torch.arange(256) % 32 == 31, 30.0, 1.0))
    quantizer = find_quantizer("awq").quantizer(Options(group_size=group), SHAPES)
    factors = quantizer.balance([plain], known)
    assert factors is not None and factors.max() > 1 > factors.min()
    assert sorted(factors.argsort()[-8:].tolist()) == list(range(31, 256, 32))
    packed = read_back(quantizer, quantizer.quantize(plain * factors, known.divided_by(factors)))
    assert isinstance(packed, Grouped) and packed.zero is not None
    alone = read_back(quantizer, quantizer.quantize(plain, known))
    lost = energy(packed.dequantize() / factors - plain, known)
    assert lost < 0.8 * energy(alone.dequantize() - plain, known)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("variant", "bits"), [("rtn", 4), ("rtn", 8), (None, 4)])
@pytest.mark.parametrize("group", [64, -1])
def test_packed_integers_err_by_half_a_step(variant, bits, group, symmetric):
    plain, known = weights(), Statistics(torch.eye(256), torch.ones(256))
    options = Options(variant=variant, bits=bits, group_size=group, symmetric=symmetric)
    quantizer = find_quantizer("compressed_tensors").quantizer(options, SHAPES)
    assert quantizer.calibrated == (variant is None)
    packed = read_back(quantizer, quantizer.quantize(plain, known if variant is None else None))
    assert isinstance(packed, Grouped) and (packed.zero is None) == symmetric
    scale = packed.scale.float().repeat_interleave(packed.group, 1)
    inside = (packed.unpack() > 0) & (packed.unpack() < 2**bits - 1)
    error = (packed.dequantize() - plain).abs()
    assert (error <= 0.501 * scale)[inside].all() or not symmetric
    assert inside.float().mean() > 0.8
    assert float(error.norm() / plain.norm()) < (0.13 if bits == 4 else 0.01)


def test_options_that_a_format_has_not_are_named():
    with pytest.raises(FormatError, match="format int8 has no option group_size"):
        find_quantizer("int8").quantizer(Options(group_size=64), SHAPES)


def test_unknown_formats_list_those_that_there_are():
    with pytest.raises(FormatError, match=r"present are .*fp8.*int8"):
        find_quantizer("fp9")


def golden(name):
    """Tensors of a golden file, and the weight that the reader of its format makes of them."""
    file = Path(__file__).parent / "golden" / f"{name}.safetensors"
    with safe_open(file, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        config = {"quantization_config": json.loads(opened.metadata()["quantization_config"])}
    del tensors["effective_weight"]
    store = MemoryStore(ORIGIN, {f"m.{key}": tensor for key, tensor in tensors.items()})
    checkpoint = Checkpoint(ORIGIN, "safetensors", store, config, {})
    return tensors, find_format(checkpoint).reader(checkpoint)(store, "m")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("gptq-int4-g64", lambda coded: gptq.packed(coded, 4, 1)),
        ("awq-int4-g64", awq.packed),
        ("ct-w4a16-asym", lambda coded: compressed_tensors.packed(coded, 4, symmetric=False)),
        ("ct-w4a16-channel", lambda coded: compressed_tensors.packed(coded, 4, symmetric=True)),
        ("ct-w8a16-g64", lambda coded: compressed_tensors.packed(coded, 8, symmetric=True)),
    ],
)
def test_codes_of_other_tools_are_packed_as_they_do(name, written):
    expected, packed = golden(name)
    groups = torch.arange(packed.in_features, dtype=torch.int32) // packed.group
    coded = Coded(packed.unpack(), packed.scale.float(), packed.zeros().float(), groups)
    found = written(coded)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].shape == tensor.shape, key
        if not tensor.is_floating_point():
            assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key


def test_normal_floats_are_those_of_bitsandbytes():
    expected, packed = golden("bnb-nf4")
    nf4 = find_quantizer("nf4").quantizer(Options(), {(16, 576)})
    found = nf4.quantize(packed.dequantize(), None)
    assert found.keys() == expected.keys()
    for key in ("weight", "weight.absmax", "weight.quant_map"):
        torch.testing.assert_close(found[key], expected[key], rtol=1e-6, atol=0)
    nested, _ = golden("bnb-nf4-dq")
    torch.testing.assert_close(dynamic_table(), nested["weight.nested_quant_map"])
    made = find_quantizer("nf4").quantizer(Options(variant="nested"), {(16, 576)})
    assert made.quantize(packed.dequantize(), None).keys() == nested.keys()
