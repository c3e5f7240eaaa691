"""Every format, each tensor and setting of it damaged in every way: a weight, or an error of ours.

A tensor that is damaged must be refused by name, unless it is among those that the weight can do
without (`SPARED`); a module then decodes to the numbers that it had.
"""

import json
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from aphrodite_quant import QuantError, Weights, format_names
from aphrodite_quant.checkpoint import Checkpoint
from aphrodite_quant.containers.memory import MemoryStore
from aphrodite_quant.containers.pickled import open_pickled
from safetensors import safe_open
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "golden"
FILE = Path("model.safetensors")
PLACED = ("dense", "gguf")
"""Formats without tensors or settings of their own: their containers are damaged elsewhere."""


@dataclass(frozen=True)
class Specimen:
    """A module of one format, whole."""

    tensors: dict[str, torch.Tensor]
    config: dict[str, object]
    described: dict[str, object] | None = None
    """What the metadata of the file say of the weight, or of its module."""
    joint: str = "."
    """Between the name of the module and those of its tensors."""
    stated_in: str = "quantization_config"
    """Where config.json has the configuration."""

    def weights(self):
        named = {f"layer{self.joint}{leaf}": tensor for leaf, tensor in self.tensors.items()}
        stated = {self.stated_in: self.config}
        said = dict.fromkeys(("layer", "layer.weight"), json.dumps(self.described))
        said = said if self.described else {}
        store = MemoryStore(FILE, named)
        return Weights.of(Checkpoint(Path("model"), "safetensors", store, stated, said))


def golden(name, case="", config=None, without=()):
    """What a tool wrote; the configuration is in the file's metadata unless it is given."""
    start = f"{case}." if case else ""
    file = GOLDEN / f"{name}.safetensors"
    found = {n.removeprefix(start): t for n, t in load_file(file).items() if n.startswith(start)}
    tensors = {n: t for n, t in found.items() if n not in ("effective_weight", *without)}
    with safe_open(file, "pt") as reader:
        metadata = reader.metadata() or {}
    return Specimen(tensors, config or json.loads(metadata[case or "quantization_config"]))


def torchao(name, case):
    whole = golden(name, case)
    return Specimen(whole.tensors, {"quant_method": "torchao"}, whole.config)


def pickled(name, method, case, leaf=""):
    """A module as a tool saves it with torch."""
    store, start = open_pickled(GOLDEN / name), f"{case}."
    tensors = {n[len(start) :]: store.read(n) for n in store.names() if n.startswith(start)}
    return Specimen(tensors, {"quant_method": method}, json.loads(store.metadata[case + leaf]))


def mxfp4():
    whole = load_file(GOLDEN / "mxfp4.safetensors")
    tensors = {name: whole[name][0] for name in ("blocks", "scales")}
    return Specimen(tensors, {"quant_method": "mxfp4", "modules_to_not_convert": []}, joint="_")


def random(shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(len(shape))
    if dtype.is_floating_point:
        return (torch.rand(shape, generator=generator) + 0.5).to(dtype)
    limits = torch.iinfo(dtype)
    return torch.randint(limits.min, limits.max + 1, shape, generator=generator, dtype=dtype)


def fp8(method, name, shape):
    weight = random((256, 256)).to(torch.float8_e4m3fn)
    return Specimen({"weight": weight, name: random(shape)}, {"quant_method": method})


def squeezellm():
    tensors = {
        "qweight": random((12, 24), torch.int32), "lookup_table": random((24, 16)),
        "rows": torch.arange(25).int(), "cols": torch.arange(24).int(), "vals": random((24,)),
        "full_rows": random((96, 2)),
        "full_row_indices": torch.tensor([5, 3]).int(),
    }  # fmt: skip
    return Specimen(tensors, {"quant_method": "squeezellm", "wbits": 4})


def exl2():
    tensors = {
        "q_weight": random((12, 16), torch.int32), "q_scale": random((2, 2), torch.int32),
        "q_scale_max": random((2,)).half(), "q_groups": torch.tensor([8, 0, 4, 8]).short(),
        "q_invperm": torch.randperm(64).int(),
    }  # fmt: skip
    return Specimen(tensors, {"quant_method": "exl2", "bits": 6.0})


def quip():
    tensors = {
        "Qidxs": random((64, 16), torch.int16), "SU": random((128,)).half(),
        "SV": random((64,)).half(), "Wscale": random(()),
    }  # fmt: skip
    return Specimen(tensors, {"quant_method": "QUiP", "codebook": "E8P12", "use_rand": True})


def quip_sharp(case):
    whole = golden("quip-sharp", case)
    return replace(whole, stated_in="quip_params")


def vptq():
    settings = {
        "out_features": 24, "group_num": 2, "group_size": 16, "vector_lens": [-1, 6],
        "num_centroids": [-1, 16], "num_res_centroids": [-1, 16], "outlier_size": 0,
        "enable_norm": True, "enable_perm": True, "is_indice_packed": True,
    }  # fmt: skip
    tensors = {
        "indices": random((2, 4, 4), torch.int32), "centroids.weight": random((2, 96)).half(),
        "res_centroids.weight": random((2, 96)).half(), "perm": torch.randperm(32).short(),
        "weight_scale": random((32,)).half(), "weight_bias": random((32,)).half(),
    }  # fmt: skip
    return Specimen(tensors, {"quant_method": "vptq", "config_for_layers": {"layer": settings}})


def quark(dtype, shared, tensors):
    weight = {"dtype": dtype, "qscheme": shared, "ch_axis": 0 if shared == "per_channel" else -1}
    weight |= {"group_size": 32, "scale_format": "e8m0"} if shared == "per_group" else {}
    stated = {"weight": weight, "input_tensors": None}
    return Specimen(tensors, {"quant_method": "quark", "global_quant_config": stated})


AQLM = {
    "quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8, "in_group_size": 8,
    "out_group_size": 1,
}  # fmt: skip
HQQ_BESIDE = {
    "nbits", "group_size", "axis", "unpack_view_dtype", "compute_dtype", "offload_meta",
    "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize", "round_zero",
    "view_as_float", "quant_scale", "quant_zero", ("packing", "two dimensions more"),
}  # fmt: skip
NF4_STATE = "weight.quant_state.bitsandbytes__nf4"
NAMES = re.compile(r"'layer[\w.]*'")
ROUND = {"quant_method": "auto-round", "bits": 4, "group_size": 32, "sym": False}
SPECIMENS = {
    "aqlm": partial(golden, "aqlm", "2x8g8", AQLM),
    "auto_round": partial(
        golden, "auto-round", "auto_round-4bit", ROUND | {"packing_format": "auto_round"}
    ),
    "awq": partial(golden, "awq-int4-g64"),
    "awq gemv": partial(
        golden, "awq-gemv", "gemv-g64",
        {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemv"},
    ),
    "awq fast": partial(
        golden, "awq-gemv", "gemv_fast-g32",
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemv_fast"},
    ),
    "bitnet": partial(
        golden, "bitnet", "", {"quant_method": "bitnet"},
        ("autobitlinear", "bitlinear", "online", "online_weight", "unpacked"),
    ),
    "bitsandbytes nf4": partial(golden, "bnb-nf4-dq"),
    "bitsandbytes int8": partial(golden, "bnb-int8"),
    "compressed_tensors w4": partial(golden, "ct-w4a16-asym"),
    "compressed_tensors order": partial(golden, "ct-older", "w4-order"),
    "compressed_tensors sparse": partial(golden, "ct-older", "sparse-fp8"),
    "compressed_tensors int8": partial(golden, "ct-schemes", "int8-group-asym"),
    "compressed_tensors fp8": partial(golden, "ct-schemes", "fp8-block"),
    "compressed_tensors mxfp4": partial(golden, "ct-mxfp4"),
    "compressed_tensors mxfp8": partial(golden, "ct-mxfp8"),
    "compressed_tensors nvfp4": partial(golden, "ct-nvfp4a16"),
    "exl2": exl2,
    "exl3": partial(
        golden, "exl3", "inst3.3bit", {"quant_method": "exl3", "bits": 3.0, "head_bits": 6},
        ("inner_weight", "x", "y"),
    ),
    "fbgemm_fp8": partial(fp8, "fbgemm_fp8", "weight_scale", (256, 1)),
    "fp8": partial(fp8, "fp8", "weight_scale_inv", (2, 2)),
    "gptq": partial(golden, "gptq-int4-g64"),
    "gptq_marlin_24": partial(
        golden, "marlin", "marlin24-4bit-g64",
        {"quant_method": "gptq_marlin_24", "bits": 4, "group_size": 64}, ("codes", "scales"),
    ),
    "hqq": partial(golden, "hqq", "4bit-g64-axis1-16x64", {"quant_method": "hqq"}),
    "hqq axis 0": partial(golden, "hqq", "3bit-g16-axis0-32x32", {"quant_method": "hqq"}),
    "hqq qmodel": partial(pickled, "hqq-qmodel.pt", "hqq", "both"),
    "hqq offload": partial(pickled, "hqq-qmodel.pt", "hqq", "offload"),
    "marlin": partial(
        golden, "marlin", "marlin-g32", {"quant_method": "marlin", "group_size": 32},
        ("codes", "scales"),
    ),
    "modelopt nvfp4": partial(golden, "modelopt", "nvfp4"),
    "modelopt awq": partial(golden, "modelopt-awq", "w4a8-awq"),
    "modelopt mxfp8": partial(golden, "modelopt", "mxfp8"),
    "mxfp4": mxfp4,
    "quanto": partial(golden, "quanto", "int8"),
    "quanto int4": partial(golden, "quanto-bits", "int4-half"),
    "quark uint4": partial(golden, "quark", "uint4-group"),
    "quark uint8": partial(golden, "quark", "uint8-channel"),
    "quark fp6": partial(golden, "quark", "fp6-e3m2"),
    "quark int8": partial(
        quark, "int8", "per_channel",
        {"weight": random((64, 96), torch.int8), "weight_scale": random((64,))},
    ),
    "quark mxfp4": partial(
        quark, "fp4", "per_group",
        {
            "weight": random((64, 32), torch.uint8),
            "weight_scale": torch.full((64, 2), 120, dtype=torch.uint8),
        },
    ),
    "quip": quip,
    "quip_sharp": partial(quip_sharp, "e8p12"),
    "quip_sharp scaled": partial(quip_sharp, "e8p12-scaled"),
    "squeezellm": squeezellm,
    "torchao int4": partial(torchao, "torchao", "int4-plain"),
    "torchao tiles": partial(torchao, "torchao-blocks", "int4-tile"),
    "torchao few": partial(torchao, "torchao", "intx-3-asym"),
    "torchao float8": partial(torchao, "torchao", "float8-block"),
    "torchao mxfp8": partial(torchao, "torchao-blocks", "mxfp8-swizzled"),
    "torchao nvfp4": partial(torchao, "torchao-blocks", "nvfp4-swizzled"),
    "torchao int8": partial(golden, "torchao-int8wo"),
    "torchao older": partial(pickled, "torchao-older.bin", "torchao", "int8-int4", ".weight"),
    "torchao shards": partial(pickled, "torchao-older.bin", "torchao", "uint3", ".weight"),
    "vptq": vptq,
}  # fmt: skip


def shorter(axis):
    """The tensor without its last part along `axis`; of a number, two."""

    def cut(tensor):
        if tensor.ndim == 0:
            return tensor.repeat(2)
        return tensor.narrow(axis, 0, tensor.shape[axis] - 1).contiguous()

    return cut


DAMAGE = {
    "missing": lambda tensor: None,
    "cut in front": shorter(0),
    "cut at the end": shorter(-1),
    "empty": lambda tensor: tensor.new_zeros([0, *tensor.shape[1:]]),
    "two dimensions more": lambda tensor: tensor[None, None],
    "other numbers": lambda tensor: (
        tensor.bool() if tensor.is_floating_point() else torch.ones(tensor.shape)
    ),
    "no numbers": lambda tensor: torch.full(tensor.shape, torch.nan),
    "complex": lambda tensor: torch.ones(tensor.shape, dtype=torch.complex64),
}
SPARED = {
    "bitsandbytes nf4": {("weight", "two dimensions more"), (NF4_STATE, "two dimensions more")},
    "bitsandbytes int8": {"weight_format"},
    "compressed_tensors order": {("weight_g_idx", "missing")},
    "compressed_tensors sparse": {
        ("shape", "two dimensions more")
    },
    "compressed_tensors int8": {("weight_zero_point", "two dimensions more")},
    "compressed_tensors mxfp8": {("weight_scale", "other numbers")},
    "gptq": {"g_idx"},
    "hqq": HQQ_BESIDE, "hqq axis 0": HQQ_BESIDE,
    "modelopt awq": {
        "input_scale", ("pre_quant_scale", "missing"), ("weight_scale_2", "missing"),
    },
    "quanto": {"input_scale", "output_scale"},
    "quanto int4": {"input_scale", "output_scale"},
    "quip": {("SU", "missing"), ("SV", "missing")},
    "torchao few": {("_weight_zero_point", "other numbers")},
    "torchao int8": {"_weight_zero_point"},
    "torchao older": {("_weight_zero_point", "other numbers")},
    "torchao shards": {("_weight_zero_point", "other numbers")},
    "torchao mxfp8": {("_weight_scale", "two dimensions more")},
    "torchao nvfp4": {("_weight_scale", "two dimensions more")},
}  # fmt: skip
"""Tensors that say again what others say, and damage that leaves another weight that can be."""


def test_every_format_has_a_specimen():
    covered = {name.split()[0] for name in SPECIMENS}
    assert covered == set(format_names()) - set(PLACED)


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_damaged_tensor_is_named(name):
    whole = SPECIMENS[name]()
    expected = whole.weights().packed("layer").dequantize()
    shape, wrong = tuple(expected.shape), []
    for leaf, tensor in whole.tensors.items():
        for kind, damage in DAMAGE.items():
            changed = {**whole.tensors, leaf: damage(tensor)}
            kept = {n: t for n, t in changed.items() if t is not None}
            try:
                found = replace(whole, tensors=kept).weights().packed("layer", shape)
            except QuantError as error:
                text = str(error)
                if "model.safetensors" not in text or not NAMES.search(text):
                    wrong.append((leaf, kind, text))
            except Exception as error:
                wrong.append((leaf, kind, repr(error)))
            else:
                if not {leaf, (leaf, kind)} & SPARED.get(name, set()):
                    wrong.append((leaf, kind, type(found)))
    assert not wrong, "\n".join(str(each) for each in wrong)


VALUES = ("4", "nonsense", None, -3, 0, 4096, 2.5, True, [], [1], {}, {"a": 1}, [None])
"""What a setting may be by mistake."""

DEFAULTS = (("packing_format", None),)
"""Settings that may be left out, and then mean something else."""


def changed(stated, path=()):
    """A configuration with each of its values replaced by each of `VALUES`, at any depth."""
    pairs = enumerate(stated) if isinstance(stated, list) else stated.items()
    for key, own in list(pairs):
        for value in VALUES:
            copy = json.loads(json.dumps(stated))
            copy[key] = value
            yield (*path, key, value), copy
        if isinstance(own, dict | list):
            for place, inner in changed(own, (*path, key)):
                copy = json.loads(json.dumps(stated))
                copy[key] = inner
                yield place, copy


@pytest.mark.parametrize("name", SPECIMENS)
def test_a_wrong_setting_is_refused_or_changes_nothing(name):
    whole = SPECIMENS[name]()
    expected, wrong = whole.weights().packed("layer").dequantize(), []
    damaged = [(place, {"config": config}) for place, config in changed(whole.config)]
    damaged += [(place, {"described": said}) for place, said in changed(whole.described or {})]
    for place, damage in damaged:
        try:
            found = replace(whole, **damage).weights().packed("layer")
        except QuantError as error:
            if not str(error).startswith("model"):
                wrong.append((place, str(error)))
        except Exception as error:
            wrong.append((place, repr(error)))
        else:
            if place not in DEFAULTS and not torch.equal(found.dequantize(), expected):
                wrong.append((place, "other numbers"))
    assert not wrong, "\n".join(str(each) for each in wrong)
