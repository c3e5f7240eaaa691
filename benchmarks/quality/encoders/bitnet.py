"""BitNet b1.58 as transformers packs it: rounded in units of the mean size, one scale each."""

from collections.abc import Sequence
from typing import Any

import torch
from encoders.shared import Encoded, Encoder, Shapes
from torch import Tensor


def encode(weight: Tensor) -> Encoded:
    scale = (1 / weight.abs().mean()).bfloat16()
    codes = (weight * scale.float()).round().clamp(-1, 1)
    quarters = (codes + 1).to(torch.uint8).chunk(4)
    packed = sum(quarter << 2 * field for field, quarter in enumerate(quarters))
    assert isinstance(packed, Tensor)
    return Encoded({"weight": packed, "weight_scale": scale.view(1)}, codes / scale.float())


def _config(encoded: Shapes, plain: Sequence[str]) -> dict[str, Any]:
    return {
        "quant_method": "bitnet",
        "linear_class": "bitlinear",
        "quantization_mode": "offline",
        "modules_to_not_convert": ["lm_head", *plain],
    }


ENCODERS = {"bitnet": Encoder(encode, _config)}
