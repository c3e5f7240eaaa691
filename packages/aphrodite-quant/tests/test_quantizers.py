"""What quantisers write, the readers of the same formats read: the nearest numbers there are."""

from pathlib import Path

import pytest
import torch
from aphrodite_kernels.layouts import Scaled
from aphrodite_quant import Checkpoint, FormatError, Options, find_format, find_quantizer
from aphrodite_quant.containers.memory import MemoryStore

ORIGIN = Path("made/here")
SHAPES = {(96, 256)}


def weights():
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(96, 256, generator=generator)
    weight *= 10 ** torch.linspace(-3, 1, 96)[:, None]
    weight[7] = 0
    return weight


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


def test_options_that_a_format_has_not_are_named():
    with pytest.raises(FormatError, match="format int8 has no option group_size"):
        find_quantizer("int8").quantizer(Options(group_size=64), SHAPES)


def test_unknown_formats_list_those_that_there_are():
    with pytest.raises(FormatError, match=r"present are .*fp8.*int8"):
        find_quantizer("fp9")
