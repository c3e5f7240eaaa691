"""VPTQ: as its own package decodes it, by its definition in Python, and files that are wrong."""

import json
from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Dense
from aphrodite_kernels.layouts.runs import Runs
from aphrodite_quant import FormatError, TensorError
from safetensors import safe_open
from safetensors.torch import load_file

FILE = Path(__file__).parent / "golden" / "vptq.safetensors"
GOLDEN = load_file(FILE)
WITHOUT = {
    "out_features": 20, "group_num": 2, "group_size": 10, "vector_lens": [-1, 6],
    "num_centroids": [-1, 4096], "num_res_centroids": [-1, -1], "outlier_size": 0,
    "enable_norm": False, "enable_perm": False, "is_indice_packed": True,
}  # fmt: skip
FULL = WITHOUT | {
    "vector_lens": [4, 6], "num_centroids": [512, 65536], "num_res_centroids": [-1, 256],
    "outlier_size": 3, "enable_norm": True, "enable_perm": True,
}  # fmt: skip


def config(settings, name="layer"):
    return {"quant_method": "vptq", "config_for_layers": {name: settings}}


def golden(case):
    """Settings, tensors and the decoded matrix; entries of codebooks that no code names are 0."""
    with safe_open(FILE, "pt") as reader:
        settings = json.loads(reader.metadata()["settings"])[case]
    found = {n.removeprefix(f"{case}."): t for n, t in GOLDEN.items() if n.startswith(f"{case}.")}
    expected = found.pop("effective_weight")
    counts = {
        "centroids.weight": settings["num_centroids"][1],
        "res_centroids.weight": settings["num_res_centroids"][1],
        "outlier_centroids.weight": settings["num_centroids"][0],
    }
    for name, count in counts.items():
        if f"{name}.named" in found:
            named, entries = found.pop(f"{name}.named").long(), found.pop(f"{name}.entries")
            whole = torch.zeros(len(entries), count, entries.shape[2], dtype=entries.dtype)
            whole[:, named] = entries
            found[name] = whole.flatten(1)
    return settings, found, expected


def stream(rows, bits):
    """Rows of codes as little-endian bit streams in int32 words, padded to whole words."""
    packed = []
    for row in rows.tolist():
        value = sum(code << bits * k for k, code in enumerate(row))
        size = -(-len(row) * bits // 32) * 4
        packed.append(
            torch.frombuffer(bytearray(value.to_bytes(size, "little")), dtype=torch.int32)
        )
    return torch.stack(packed)


def made(settings):
    """Tensors of a module, and the dense matrix by the definition."""
    generator = torch.Generator().manual_seed(11)
    rows, groups, size = 20, settings["group_num"], settings["group_size"]
    (outer, length), (apart, count) = settings["vector_lens"], settings["num_centroids"]
    residual = settings["num_res_centroids"][1]
    bits, more = (count - 1).bit_length(), (residual - 1).bit_length() if residual > 0 else 0
    vectors, tensors, blocks = -(-rows // length), {}, []
    if outer > 0:
        table = torch.randn(apart, outer, generator=generator).half()
        codes = torch.randint(apart, (-(-rows // outer), 3), generator=generator)
        tensors["outlier_indices"] = codes.short()[None]
        tensors["outlier_centroids.weight"] = table.view(1, -1)
        blocks.append(table.float()[codes].transpose(1, 2).reshape(-1, 3)[:rows])
    tables = torch.randn(groups, count, length, generator=generator).half()
    codes = torch.randint(count, (groups, vectors, size), generator=generator)
    joined, decoded = codes, [tables[g].float()[codes[g]] for g in range(groups)]
    if residual > 0:
        rest = torch.randn(groups, residual, length, generator=generator).half()
        extra = torch.randint(residual, codes.shape, generator=generator)
        joined = codes + (extra << bits)
        decoded = [part + rest[g].float()[extra[g]] for g, part in enumerate(decoded)]
        tensors["res_centroids.weight"] = rest.view(groups, -1)
    tensors["indices"] = torch.stack([stream(part, bits + more) for part in joined])
    tensors["centroids.weight"] = tables.view(groups, -1)
    blocks += [part.transpose(1, 2).reshape(-1, size)[:rows] for part in decoded]
    dense = torch.cat(blocks, 1)
    width = dense.shape[1]
    if settings["enable_perm"]:
        perm = torch.randperm(width, generator=generator)
        tensors["perm"] = perm.short()
        dense = dense[:, perm.argsort()]
    if settings["enable_norm"]:
        scale, bias = (torch.randn(width, generator=generator).half() for _ in range(2))
        tensors |= {"weight_scale": scale, "weight_bias": bias}
        dense = dense * scale.float() + bias.float()
    return tensors, dense


@pytest.mark.parametrize("case", ["packed", "unpacked", "unpacked-float"])
def test_it_is_what_its_own_package_decodes(write_module, case):
    settings, tensors, expected = golden(case)
    for perm in (tensors["perm"], tensors["perm"].long()):
        module = write_module(config(settings), tensors | {"perm": perm})
        found = module.packed("layer", tuple(expected.shape)).dequantize()
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"res_indices": None}, "layer.res_indices"),
        ({"indices": torch.ones(2, 4, 9).short()}, r"int16 \[2, 4, 9\]; exp.* int16 \[2, 4, 10\]"),
        ({"indices": torch.ones(2, 4, 10).half()}, r"float16 .*; expected int16 \[2, 4, 10\]"),
        ({"indices": torch.full((2, 4, 10), -1).short()}, "code 65535 names none of 40000 entries"),
        (
            {"res_indices": torch.full((2, 4, 10), 300).short()},
            "res_indices': code 300 names none of 300 entries",
        ),
    ],
)
def test_what_is_wrong_in_unpacked_codes_is_named(write_module, change, message):
    settings, tensors, _ = golden("unpacked")
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        write_module(config(settings), tensors | change).packed("layer")


@pytest.mark.parametrize(
    "settings",
    [
        WITHOUT,
        FULL,
        WITHOUT | {"norm_dim": 1},
        FULL
        | {
            "norm_dim": 0,
            "num_centroids": [512, 300],
            "num_res_centroids": [-1, 5000],
            "group_num": 1,
        },
        FULL | {"num_res_centroids": [-1, 65536]},
    ],
)
def test_it_is_what_the_definition_says(write_module, settings):
    tensors, dense = made(settings)
    found = write_module(config(settings), tensors).packed("layer", tuple(dense.shape))
    assert isinstance(found, Runs)
    torch.testing.assert_close(found.dequantize(), dense, rtol=1e-6, atol=1e-6)


def test_modules_may_share_settings(write_module):
    tensors, dense = made(FULL)
    stated = {"quant_method": "vptq", "shared_layer_config": {"layer": FULL}}
    found = write_module(stated, tensors).packed("layer")
    torch.testing.assert_close(found.dequantize(), dense, rtol=1e-6, atol=1e-6)


def test_a_module_that_was_left_alone_is_dense(write_module):
    found = write_module(config(FULL), {"weight": torch.ones(4, 8)}).packed("layer")
    assert isinstance(found, Dense)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centroids.weight": None}, "layer.centroids.weight"),
        ({"res_centroids.weight": None}, "layer.res_centroids.weight"),
        ({"weight_bias": None}, "layer.weight_bias"),
        ({"indices": torch.ones(2, 4, 9).int()}, r"int32 \[2, 4, 9\]; expected int32 \[2, 4, 8\]"),
        ({"centroids.weight": torch.ones(2, 8)}, r"expected floating numbers \[2, 393216\]"),
        ({"weight_scale": torch.full((23,), torch.nan)}, "weight_scale' holds nan; expected"),
        (
            {"outlier_indices": torch.full((1, 5, 3), 512).short()},
            "outlier_indices': code 512 names none of 512 entries",
        ),
        ({"perm": torch.zeros(23).short()}, "does not name each of 23 input features once"),
        ({"perm": torch.zeros(23)}, r"float32 \[23\]; expected integers \[23\]"),
    ],
)
def test_what_is_wrong_is_named(write_module, change, message):
    with pytest.raises(TensorError, match=rf"model.safetensors.*{message}"):
        write_module(config(FULL), made(FULL)[0] | change).packed("layer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_indice_packed": 1}, "has is_indice_packed 1; expected true or false"),
        ({"vector_lens": [1]}, r"has vector_lens \[1\]; expected two numbers"),
        ({"vector_lens": [-1, 0]}, "expected vectors of 1 or more"),
        ({"num_centroids": [-1, 70000]}, "2 to 65536 centroids"),
        ({"num_res_centroids": [4, 4]}, "expected none for outliers"),
        ({"group_size": -1}, "has group_size -1; expected a number above 0"),
        ({"outlier_size": 0}, "has outlier_size 0; expected a number above 0"),
        ({"norm_dim": 1}, "has norm_dim 1; weight_scale and weight_bias are of input"),
    ],
)
def test_settings_that_no_format_has(write_module, change, message):
    with pytest.raises(FormatError, match=rf"the configuration of 'layer'.*{message}"):
        write_module(config(FULL | change), made(FULL)[0]).packed("layer")


def test_a_module_without_settings_is_named(write_module):
    with pytest.raises(FormatError, match="the configuration of 'layer' is None, expected"):
        write_module(config(FULL, "other"), made(FULL)[0]).packed("layer")
    with pytest.raises(FormatError, match=r"config_for_layers is \[1\], expected an object"):
        write_module({"quant_method": "vptq", "config_for_layers": [1]}, made(FULL)[0])
